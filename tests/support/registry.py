"""A registry on loopback that stands for ECR: Debian's docker-registry, with the login that moto gives."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from types import TracebackType
from typing import Self

#: Source: moto.ecr.responses, get_authorization_token.
USER, PASSWORD = "AWS", "123456789012-auth-token"
#: The same as bcrypt, the one kind that the registry reads. Python has no module for that from 3.13 on.
_BCRYPT = "$2b$04$x3/LER0NTdXlQw.Uv./u5u3e/A9wIzcvLWqgEf8dd5gsqyZIar3S6"
_START_S = 20.0


class Registry:
    """`with Registry(directory) as registry:` serves from a new directory at `registry.address`, HOST:PORT."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._directory = directory / "registry"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir()
        passwords = self._directory / "htpasswd"
        passwords.write_text(f"{USER}:{_BCRYPT}\n")
        config = self._directory / "config.yml"
        config.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "log": {"level": "error"},
                    "storage": {
                        "filesystem": {"rootdirectory": str(self._directory / "data")},
                        "delete": {"enabled": True},
                    },
                    "http": {"addr": self.address},
                    "auth": {"htpasswd": {"realm": "test", "path": str(passwords)}},
                }
            )
        )
        self._start()
        return self

    def _start(self) -> None:
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(self._directory / "config.yml")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, "docker-registry has ended"
            assert time.monotonic() < until, "docker-registry does not answer"
            time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def clear(self) -> None:
        """Forget every image."""
        self._stop()
        shutil.rmtree(self._directory / "data", ignore_errors=True)
        self._start()

    def get(self, path: str) -> bytes:
        """What it answers to GET `path`, below /v2/. Raise HTTPError."""
        login = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(
            f"http://{self.address}/v2/{path}", headers={"Authorization": f"Basic {login}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            found: bytes = answer.read()
            return found

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository, [] if there is none."""
        try:
            return sorted(json.loads(self.get(f"{repository}/tags/list"))["tags"] or [])
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return []

    def _answers(self) -> bool:
        try:
            self.get("")
        except (urllib.error.URLError, OSError):
            return False
        return True
