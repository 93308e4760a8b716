"""SIGINT, SIGTERM and SIGHUP, passed to a handler or raised as Stopped, which can be delayed during a request."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asks for the task to be stopped. `exit_code` is 128 plus the signal's number, as in shells."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def caught(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Pass signals to `handler` in the body. A signal that was ignored before (nohup) stays ignored."""
    wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


class Stoppable(ExitStack):
    """A context in which a signal raises Stopped; between `hold()` and `release()` a first one is delayed.

    `was_held` says whether `hold` was ever called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.was_held = False
        self._held = False
        self._pending: int | None = None

    def __enter__(self) -> Self:
        self.enter_context(caught(self._on_signal))
        return super().__enter__()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if not self._held or self._pending is not None:
            raise Stopped(number)
        self._pending = number

    def hold(self) -> None:
        """Delay a first signal until `release`. A second one is raised at once."""
        self._held = self.was_held = True

    @contextmanager
    def whole_cleanup(self) -> Iterator[None]:
        """Delay a first signal after the body, for what is cleaned up then: it would leave half of that behind."""
        try:
            yield
        finally:
            self._held = True

    def release(self) -> None:
        """Stop delaying. Raises Stopped if a signal has come since `hold`."""
        self._held = False
        pending, self._pending = self._pending, None
        if pending is not None:
            raise Stopped(pending)
