"""SIGINT, SIGTERM and SIGHUP: to a handler, or as one exception that waits while a request must not be cut in two."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """The operator wants the task stopped. `exit_code` is 128 plus the signal's number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def caught(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Send signals to `handler` while entered. A signal ignored from the start (nohup) stays ignored."""
    wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


class Stoppable:
    """While entered, a signal raises Stopped; after `hold()` only once `release()` is called.

    `was_held`: `hold` was called.
    """

    def __init__(self) -> None:
        self.was_held = False
        self._held = False
        self._pending: int | None = None
        self._caught = caught(self._on_signal)

    def __enter__(self) -> Self:
        self._caught.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        # Not with the exception: the handlers go back whatever it is.
        self._caught.__exit__(None, None, None)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._held and self._pending is None:
            self._pending = number
            return
        raise Stopped(number)

    def hold(self) -> None:
        """Let a first signal wait. A second one is raised all the same."""
        self._held = self.was_held = True

    def release(self) -> None:
        """Raise what has waited."""
        self._held = False
        pending, self._pending = self._pending, None
        if pending is not None:
            raise Stopped(pending)
