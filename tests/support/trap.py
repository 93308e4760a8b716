"""A daemon that dies, as by SIGKILL, right after it has done what a test has named: once, at the next such moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What is committed when the daemon dies: a request that has not left, an attempt that has not begun, ….
RUNNING = ("reserve", "start", "end", "begin", "opened", "collecting", "handling", "collected", "ended")
#: While the daemon starts: the pages are looked at, the crash is counted, what was reserved is spent.
STARTING = ("check", "recover")


class Trap:
    """The file that names the moment, from the side of the test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self, point: str) -> None:
        """The daemon dies the next time that it has done `point`."""
        self.path.write_text(point)

    def unset(self) -> bool:
        """It does not any more; whether it has."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return True
        return False


def follow(path: Path) -> None:
    """Go by the file in this process, which has loaded the daemon."""
    from farmhand.agent.store import damage
    from farmhand.agent.store.ledger import Ledger
    from farmhand.agent.store.outbox import MessageBatchStore

    def spring(point: str) -> None:
        try:
            sprung = path.read_text() == point
        except FileNotFoundError:
            return
        if sprung:
            path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, points in (
        (Ledger, ("reserve", "start", "end", "recover")),
        (MessageBatchStore, RUNNING[3:]),
    ):
        for point in points:
            setattr(owner, point, _afterwards(getattr(owner, point), point, spring))

    check = damage.check

    def checked(*arguments: Any) -> None:
        check(*arguments)
        spring("check")

    vars(damage)["check"] = checked


def _afterwards(do: Callable[..., Any], point: str, spring: Callable[[str], None]) -> Callable[..., Any]:
    async def done(*arguments: Any, **named: Any) -> Any:
        found = await do(*arguments, **named)
        spring(point)
        return found

    return done
