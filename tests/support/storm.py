"""A batch on AWS Batch in real containers, and all that goes wrong beside it.

The command is killed, Spot takes children back, and calls to AWS fail, are lost after they were carried out, or come
late. Which and when is drawn from a seed.
"""

from __future__ import annotations

import json
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.aws_batch import AwsBatch, lines
from tests.support.aws_site import AwsSite

#: What may happen to a call, by the service's own name of "busy" and of "broken".
_FAULTS: dict[str, tuple[tuple[str, ...], list[dict[str, Any]]]] = {
    "s3": (("PUT", "GET"), [{"status": 503, "code": "SlowDown"}, {"status": 500, "code": "InternalError"}]),
    "dynamodb": (
        ("UpdateItem", "GetItem"),
        [{"status": 400, "code": "ThrottlingException"}, {"status": 500, "code": "InternalServerError"}],
    ),
    "batch": (
        ("describejobs", "submitjob", "listjobs"),
        [{"status": 429, "code": "TooManyRequestsException"}, {"status": 500, "code": "ServerException"}],
    ),
}
_LOST = {"reset": True, "after": True}
_LINE = re.compile(r"line (\d+) of ")


class Storm(AwsBatch):
    """The batch `name` of so many `lines`, in shards of `shard`, in `directory`."""

    def __init__(self, site: AwsSite, directory: Path, name: str, *, number: int, shard: int, seed: int) -> None:
        super().__init__(site, directory, name, lines(name, number), "--max-usd", "50", shard=shard)
        self.shard = shard
        self.chance = random.Random(seed)  # noqa: S311 - moments, no secrets
        self.killed = 0
        #: The summary of a command that was not killed in time: the next one would have nothing left to do.
        self._whole: dict[str, Any] = {}
        self.interrupted: set[str] = set()

    def faults(self, each: int, *, among: int) -> None:
        """So many faults of each service, each at one of the next `among` calls of its kind; of Batch there are few."""
        made = []
        for service, (actions, kinds) in _FAULTS.items():
            for number in range(each):
                fault = self.chance.choice([*kinds, _LOST] if service != "batch" or number else kinds)
                action = actions[number % len(actions)]
                skip = self.chance.randrange(2 if service == "batch" else among)
                made.append({"service": service, "action": action, "skip": skip, **fault})
        self.site.aws.faults(*made)

    def hit(self) -> Counter[str]:
        """How many calls met a fault, by service."""
        return Counter(service for service, _ in self.site.aws.hits)

    def kill(self, times: int, *, least_s: float, most_s: float) -> None:
        """Give the command so many times and kill it at a random moment, unless it has ended by then."""
        for _ in range(times):
            done = self.site.farmhand(*self.argv, "--json", kill_after_s=self.chance.uniform(least_s, most_s))
            if done.returncode == 0:
                self._whole = json.loads(done.stdout)
                return
            assert done.returncode == -signal.SIGKILL
            self.killed += 1

    def end(self, *more: str) -> dict[str, Any]:
        """Give the command until it has ended, unless it has; return its summary."""
        return self._whole or super().end(*more)

    @contextmanager
    def interrupting(self, number: int, *, most_s: float, working: bool) -> Iterator[None]:
        """Beside the block Spot takes back so many children, each at its first attempt, one within `most_s` seconds.

        `working`: only one that has asked the API already, so that there is something to lose. The API is fast after
        the last one.
        """
        over = threading.Event()
        # Draws of its own: those of the block do not depend on which thread comes first.
        chance = random.Random(self.chance.random())  # noqa: S311 - moments, no secrets
        thread = threading.Thread(target=self._interrupt, args=(number, most_s, working, chance, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(30)
        assert len(self.interrupted) == number

    def _interrupt(
        self, number: int, most_s: float, working: bool, chance: random.Random, over: threading.Event
    ) -> None:
        asked: set[int] = set()
        seen = 0
        while len(self.interrupted) < number and not over.wait(chance.uniform(0.1, most_s)):
            for entry in self.site.api.log(seen):
                seen = entry["n"]
                asked |= {int(line) // self.shard for line in _LINE.findall(entry.get("body", ""))}
            running = [
                name
                for name, task in self.site.aws.tasks().items()
                if name.endswith("#1") and "agent" in task["running"] and name not in self.interrupted
            ]
            fit = [name for name in running if not working or _index(name) in asked]
            if fit and self.site.aws.interrupt((name := chance.choice(fit)).partition("#")[0]):
                self.interrupted.add(name)
        self.site.api.latency()

    def check(self, whole: dict[str, Any]) -> None:
        """And every interruption told."""
        super().check(whole)
        place = whole["place"]
        assert len(place["jobs"]) == 1
        assert place["containers"] == self.children
        assert place["attempts"] == self.children + len(self.interrupted)
        again = {retry["reason"]: retry["times"] for retry in place["retries"]}
        assert again == ({"Spot interruption": len(self.interrupted)} if self.interrupted else {})


def _index(name: str) -> int:
    """The index of a child from `JOB:INDEX#ATTEMPT`."""
    return int(name.partition("#")[0].rpartition(":")[2])
