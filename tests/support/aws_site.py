"""An environment in the double of AWS with real containers: the real stacks, the real image, the loopback API."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from farmhand.aws.names import Names
from farmhand.places.image import ensure
from tests.support import command
from tests.support.fakeaws.client import ACCOUNT, FakeAws
from tests.support.farm.api import LoopbackApi
from tests.support.registry import Registry

ROOT = Path(__file__).parents[2]
#: What commands need not load once more.
LOADED = ("tests.support.aws_loaded", *(f"farmhand.cli.{verb}" for verb in ("batch", "cloud", "code", "cost", "run")))
_NOTHING: Mapping[str, str] = MappingProxyType({})
COMMAND = Path(sys.executable).with_name("farmhand")


class AwsSite:
    """`with AwsSite(directory) as site:`. Its commands have a home of their own, and no key."""

    def __init__(self, directory: Path, at_once: int = 6) -> None:
        self.directory = directory
        self.api_process = LoopbackApi(directory, ROOT)
        self.names = Names("try", ACCOUNT, "us-east-1")
        self.registry = Registry(directory)
        self.aws = FakeAws(docker=True, at_once=at_once, spot_s=20.0, registry=self.registry.address)
        # A name of its own: another run of the tests, on the same engine, removes its own at its end.
        self.image = self.aws.image(self.names.repository, f"{directory.name}-{secrets.token_hex(4)}")

    def __enter__(self) -> Self:
        self.registry.__enter__()
        self.api_process.start("127.0.0.1", "--log", str(self.api_process.requests))
        try:
            self.aws.start()
            self.aws.options(reach=[int(self.api.url.rpartition(":")[2])])
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "FARMHAND_AWS_ENVIRONMENT": "try",
            "FARMHAND_UPSTREAM_URL": self.api.url,
            **self.aws.environ(),
            **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "Op Erator"),
            **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "op@example.org"),
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.aws.__exit__(kind, error, trace)
        self.api_process.stop()
        self.registry.__exit__(kind, error, trace)
        # The name in ECR only; the image itself is kept for the next tests, as those of other places are.
        subprocess.run(["docker", "image", "rm", self.image], capture_output=True, check=False)

    @property
    def api(self) -> Any:
        """The API's control client."""
        return self.api_process.control

    @property
    def label(self) -> str:
        """The label of its containers, for Docker's filters."""
        return f"farmhand.fakeaws=fakeaws-{self.aws.url.rpartition(':')[2]}"

    def _make(self) -> None:
        subprocess.run(["docker", "tag", ensure(ROOT, print), self.image], check=True)
        self.add("try")
        secret = self.names.secret("key")
        self.aws.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=self.api_process.key)

    def add(self, environment: str, **parameters: str) -> Names:
        """Make another environment with these parameters of its base stack; its network is public by default."""
        names = Names(environment, ACCOUNT, "us-east-1")
        base = {"ImageUri": self.image, "NetworkMode": "public", **parameters}
        given: dict[str, dict[str, str]] = {"data": {}, "base": base, "network": {"NetworkMode": base["NetworkMode"]}}
        for part, more in given.items():
            values = {"Environment": environment, **more}
            self.aws.client("cloudformation").create_stack(
                StackName=getattr(names, part),
                TemplateBody=(ROOT / "aws" / f"{part}.yaml").read_text(),
                Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
                Capabilities=["CAPABILITY_NAMED_IAM"],
            )
        return names

    def start(self, *arguments: str, environ: Mapping[str, str] = _NOTHING) -> subprocess.Popen[str]:
        """`farmhand …`, started; `environ` has more variables, and "" takes one away."""
        pipe, argv, variables = subprocess.PIPE, [str(COMMAND), *arguments], self._variables(environ)
        return subprocess.Popen(
            argv, env=variables, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def _variables(self, more: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in {**self.environ, **more}.items() if value}

    def farmhand(
        self,
        *arguments: str,
        kill_after_s: float | None = None,
        timeout_s: float = 300,
        environ: Mapping[str, str] = _NOTHING,
    ) -> subprocess.CompletedProcess[str]:
        """`farmhand …`, done, or killed after so many seconds."""
        if kill_after_s:
            return self.done(self.start(*arguments, environ=environ), kill_after_s=kill_after_s)
        given = (self._variables(environ), self.directory)
        return _shown(command.run("farmhand", arguments, *given, preload=LOADED, timeout_s=timeout_s))

    def done(
        self, process: subprocess.Popen[str], *, kill_after_s: float | None = None, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """What was started, once it has ended, or killed after so many seconds."""
        try:
            out, err = process.communicate(timeout=kill_after_s or timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            out, err = process.communicate()
            assert kill_after_s, err
        return _shown(subprocess.CompletedProcess(process.args, process.returncode, out, err))

    def end_all(self) -> None:
        """End the containers that a test has left running which failed."""
        if self._any_runs():
            shown = ["docker", "ps", "--quiet", "--filter", f"label={self.label}"]
            names = subprocess.run(shown, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
            subprocess.run(["docker", "kill", *names], capture_output=True, check=False)  # some have ended by then
            self.aws.until(lambda: not self._any_runs())

    def _any_runs(self) -> bool:
        return any(task["running"] for task in self.aws.tasks().values())

    def posts(self, words: str) -> list[dict[str, Any]]:
        """What the API has answered of all requests so far whose body has these words."""
        with self.api_process.requests.open() as lines:
            found = [json.loads(line) for line in lines]
        return [post for post in found if post["path"] == "/v1/messages" and words in post.get("body", "")]

    def objects(self, part: str, names: Names | None = None) -> dict[str, bytes]:
        """The objects of the environment whose key has this in it."""
        s3, bucket = self.aws.client("s3"), (names or self.names).bucket
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [one["Key"] for page in pages for one in page.get("Contents", []) if part in one["Key"]]
        return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def ledgers(self, batch: str, names: Names | None = None) -> float:
        """The sum of all charges of a batch in the bucket, in US$."""
        total = 0.0
        for text in self.objects(f"/{batch}/ledger/", names).values():
            head, *rows = map(json.loads, text.splitlines())
            total += sum(row["cost_usd"] or 0 for row in rows[: head["charges"]])
        return total


def _shown(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Print what a command said on stderr, which is never a traceback."""
    print(done.stderr)
    assert "Traceback" not in done.stderr
    return done
