"""SIGINT, SIGTERM and SIGHUP: as one exception, which waits while a request must not be cut in two, or as two calls."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """The operator wants the task stopped. `exit_code` is 128 plus the signal's number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _Caught:
    """While entered, signals go to `_on_signal`; afterwards they go where they went before."""

    def __init__(self) -> None:
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # A signal ignored from the start (nohup) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # it came from signal.signal itself
        self._before.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        raise NotImplementedError


class Stoppable(_Caught):
    """While entered, a signal raises Stopped; after `hold()` only once `release()` is called.

    `was_held`: `hold` was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.was_held = False
        self._held = False
        self._pending: int | None = None

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


class TwoStops(_Caught):
    """While entered, a first signal calls `first`, all others `then`. `number` is the first one's, None without any."""

    def __init__(self, first: Callable[[], None], then: Callable[[], None]) -> None:
        super().__init__()
        self.number: int | None = None
        self._first = first
        self._then = then

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            self._first()
        else:
            self._then()
