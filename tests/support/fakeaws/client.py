"""The double as a process of its own, seen from a test. Nothing of moto is imported here."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.fakeaws.options import ACCESS_KEY, ACCOUNT, ITSELF, SECRET_KEY
from tests.support.patience import pause

_ROOT = Path(__file__).resolve().parents[3]
_STOP_S = 20.0
#: Characters of the log that a failure shows.
_SHOWN = 4000

__all__ = ["ACCOUNT", "FakeAws"]


class FakeAws:
    """`with FakeAws() as aws:` runs until the end of the block. Several may run at once: each has a free port.

    `docker` runs ECS tasks and Batch jobs in containers, at most `at_once` tasks at the same time. `spot_s` is the time
    from SIGTERM to SIGKILL when Spot takes a task back. `reach` are the ports of this machine that tasks reach. It
    listens at the address `host`.
    """

    def __init__(
        self,
        *,
        docker: bool = False,
        region: str = "us-east-1",
        at_once: int = 3,
        spot_s: float = 2.0,
        reach: Iterable[int] = (),
        registry: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        self.region = region
        self.account = ACCOUNT
        self.url = ""
        self._docker = docker
        self._options = ["--host", host, "--region", region, "--at-once", str(at_once), "--spot-s", str(spot_s)]
        self._options += ["--docker"] if docker else []
        self._options += [word for port in reach for word in ("--reach", str(port))]
        self._options += ["--registry", registry] if registry else []
        self._process: subprocess.Popen[str] | None = None
        self._session: Any = None
        self._lock = threading.Lock()
        self._log = Path(os.devnull)

    def start(self) -> None:
        """Start it; sets `url`. Raise RuntimeError if it does not come up."""
        descriptor, path = tempfile.mkstemp(prefix="fakeaws-", suffix=".log")
        self._log = Path(path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fakeaws", *self._options],
            cwd=_ROOT,
            env={k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MOTO_"))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=descriptor,
            text=True,
            start_new_session=True,
        )
        os.close(descriptor)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said.startswith("listening on "):
            why = self.log().strip()
            self.stop()
            raise RuntimeError(f"the double of AWS did not start: {why}")
        self.url = said.removeprefix("listening on ").strip()

    def stop(self) -> None:
        """End it by its pid, and remove what it may have left in Docker."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None
        self._log.unlink(missing_ok=True)
        self._log = Path(os.devnull)
        if process.stdout is not None:
            process.stdout.close()
        if self._docker and self.url:
            _sweep(f"fakeaws-{self.url.rpartition(':')[2]}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(self.log()[-_SHOWN:])
        self.stop()

    def log(self) -> str:
        """What it wrote on stderr so far."""
        return self._log.read_text("utf-8", "replace")

    def environ(self) -> dict[str, str]:
        """The variables with which boto3, the AWS CLI and Ansible reach it, and no other AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, service: str, **more: Any) -> Any:
        """A client of boto3 that tries each call once; `more` are arguments of boto3.client."""
        from botocore.config import Config

        options = {
            "endpoint_url": self.url,
            "region_name": self.region,
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET_KEY,
            "config": Config(retries={"total_max_attempts": 1}, user_agent_extra=ITSELF),
        }
        with self._lock:  # a session makes one client at a time
            if self._session is None:
                import boto3

                self._session = boto3.session.Session()
            return self._session.client(service, **(options | more))

    def image(self, repository: str, tag: str = "latest") -> str:
        """The exact name of an image in ECR."""
        return f"{self.account}.dkr.ecr.{self.region}.amazonaws.com/{repository}:{tag}"

    # What a test says to it.

    def faults(self, *faults: dict[str, Any]) -> None:
        """The next such calls fail: `faults.Fault` has the members. Without any, none does."""
        self._control("faults", faults=list(faults))

    @property
    def hits(self) -> list[tuple[str, str]]:
        """The calls that a fault has hit since `faults`: service and action."""
        return [(service, action) for service, action in self._control("faults")["hits"]]

    @property
    def calls(self) -> set[tuple[str, str]]:
        """The calls of the operator's commands since `reset`: service and action, for S3 with the query."""
        return {(service, action) for service, action in self._control("calls")}

    @property
    def faults_left(self) -> list[dict[str, Any]]:
        """The faults that are still to come."""
        left: list[dict[str, Any]] = self._control("faults")["faults"]
        return left

    def interrupt(self, task: str) -> bool:
        """Spot takes the task back: the ARN of an ECS task or the id of a job. Return whether it ran."""
        return bool(self._control("interrupt", id=task)["stopped"])

    def play(self, task: str, exits: dict[str, int] | None = None, reason: str = "") -> bool:
        """Without Docker: the task's containers start, and end with these codes if given. `reason` is AWS's, for a
        task that did not start: "CannotPullContainerError: …". Return whether the task waited for it."""
        return bool(self._control("play", id=task, exits=exits, reason=reason)["played"])

    def fire(self, schedule: str, at: datetime | str | None = None, group: str = "default") -> dict[str, Any]:
        """EventBridge Scheduler calls the target now, as if it were `at`. Return `payload` and `error`."""
        when = at.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(at, datetime) else at
        fired: dict[str, Any] = self._control("fire", schedule=schedule, at=when, group=group)
        return fired

    def tasks(self) -> dict[str, dict[str, Any]]:
        """What ran or runs, by ARN of the task or `job#attempt`: `running`, `exits` by container, `reason`."""
        shown: dict[str, dict[str, Any]] = self._control("tasks")
        return shown

    def options(self, **options: Any) -> None:
        """Change `lag_s`, `spot_s`, `vague_start`, `outbound` of `options.Options`, or add ports to `reach`."""
        self._control("options", **options)

    def reset(self) -> None:
        """End all tasks and forget everything: resources, faults, lag."""
        self._control("reset")

    def until(self, there: Any, seconds: float = 120.0) -> Any:
        """Call `there` until it returns something true, and return that. Raise TimeoutError."""
        end = (began := time.monotonic()) + seconds
        while not (found := there()):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s; tasks: {self.tasks()}")
            pause(began, 0.1)
            began = time.monotonic()
        return found

    def _control(self, path: str, **given: Any) -> Any:
        line = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        with contextlib.closing(line):
            line.request("POST", f"/_{path}", json.dumps(given))
            answer = line.getresponse()
            said = json.loads(answer.read())
        if answer.status != 200:
            raise RuntimeError(said["error"])
        return said


def _sweep(name: str) -> None:
    """Remove containers and volumes that have this label."""
    for listing, remove in ((["ps", "-aq"], ["rm", "-fv"]), (["volume", "ls", "-q"], ["volume", "rm", "-f"])):
        words = ["docker", *listing, "--filter", f"label=farmhand.fakeaws={name}"]
        found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
        if found:
            subprocess.run(["docker", *remove, *found], capture_output=True, check=False)
