"""What a command waits for: one line on a terminal's stderr, after a second of silence, gone when the wait is over.

Nothing is written into a pipe, by a command in the background of a shell, and once the answer is on the screen. The
line has no colour. A terminal that cannot erase (TERM=dumb) gets a line of its own for each thing that is waited for.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from farmhand.cli import say

#: Seconds of silence before the line, and between two drawings of it.
DELAY_S = 1.0
_TICK_S = 1.0
_ERASE = "\r\x1b[K"
#: The wire's reasons for waiting, and what is said of them. `{}` is what `_count` has of the event.
_REASONS = {
    "slots": "queued behind {}",
    "batch_concurrency": "queued: its batch runs as many tasks at once as it may",
    "after_crash": "queued: a task that a crash cut off runs alone first",
    "draining": "queued: the host is being emptied, and nothing new starts",
    "economy": "waits for a Message Batch, usually within the hour",
    "sandbox": "the sandbox starts",
    "rate_limit": "the API's limits are reached, and it is asked",
    "budget": "other tasks may use up the budget first",
    "api_error": "the API says {} and is asked again",
}
_STATES = {"queued": "queued", "awaiting_key": "the key is sent", "running": "the model is asked"}


def _count(event: dict[str, Any]) -> str:
    if event.get("reason") == "slots":
        ahead = event.get("ahead")
        return "others" if not isinstance(ahead, int) else "no other task" if ahead == 0 else f"{ahead:,}"
    if event.get("reason") == "api_error":
        return str(event.get("status") or "nothing")
    return str(event.get("reason"))


def described(event: dict[str, Any]) -> tuple[str, float | None] | None:
    """Return what an event of a task says that it waits for, and for how many seconds if known; None: nothing."""
    if event.get("type") == "restart":
        return "it is tried again", None
    if event.get("type") not in ("state", "waiting"):
        return None
    if event["type"] == "state":
        what = _STATES.get(str(event.get("state")))
    else:
        reason = str(event.get("reason") or "")
        what = _REASONS.get(reason, "waits: {}") if reason else _STATES["running"]
    return None if what is None else (what.format(_count(event)), event.get("in_s"))


@contextmanager
def waits_for(what: str) -> Iterator[None]:
    """Say on the line that the body waits for `what`."""
    with WaitLine() as line:
        line.on(what)
        yield


class WaitLine:
    """The line; a thread draws it, and only one that is needed is started."""

    def __init__(self) -> None:
        self._wanted = _is_ours()
        self._plain = os.environ.get("TERM", "dumb") in ("", "dumb")
        self._turn = threading.Condition()
        self._what = self._shown = ""
        self._since = self._until = 0.0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        say.before_note = self.erase
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def on(self, what: str, in_s: float | None = None) -> None:
        """Wait for `what`, for `in_s` seconds if that is known."""
        if not self._wanted:
            return
        with self._turn:
            self._since = self._since if self._what else time.monotonic()
            self._what, self._until = what, 0.0 if in_s is None else time.monotonic() + in_s
            if self._thread is None:
                self._thread = threading.Thread(target=self._draw, name="wait line", daemon=True)
                self._thread.start()
            self._turn.notify()

    def event(self, host: str, event: dict[str, Any]) -> None:
        """Follow an event of a task on `host`."""
        if self._wanted and (found := described(event)) is not None:
            self.on(f"{host}: {found[0]}", found[1])

    def erase(self) -> None:
        """Take the line away until it is drawn again."""
        with self._turn:
            self._erase()

    def close(self) -> None:
        """Take the line away for good."""
        say.before_note = say.nothing
        with self._turn:
            self._wanted, self._what = False, ""
            self._erase()
            self._turn.notify()

    def _erase(self) -> None:
        if self._shown and not self._plain:
            _write(_ERASE)
            self._shown = ""

    def _draw(self) -> None:
        with self._turn:
            while self._what:
                late = time.monotonic() - self._since
                if late >= DELAY_S and _is_ours():
                    self._show(time.monotonic())
                self._turn.wait(_TICK_S if late >= DELAY_S else DELAY_S - late)

    def _show(self, now: float) -> None:
        if self._plain:
            if self._shown != self._what:
                self._shown = self._what
                _write(f"{_fitting(say.one_line(self._what))}\r\n")
            return
        left = self._until - now
        text = f"{self._what} in {left:.0f} s" if left >= 0.5 else f"{self._what} ({now - self._since:.0f} s)"
        if text != self._shown:
            self._shown = text
            _write(f"{_ERASE}{_fitting(say.one_line(text))}")


def _is_ours() -> bool:
    """Return whether stderr is a terminal, and this process not in its background."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except OSError:  # a terminal that is not this process's own has no background
        return True


def _fitting(text: str) -> str:
    """Return `text`, cut to one less than the terminal's width, so that it never wraps."""
    with suppress(OSError):
        return cut(text, (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1)
    return text


def cut(text: str, most: int) -> str:
    """Return `text` if it takes at most `most` cells on a terminal, else its beginning and an ellipsis."""
    if text.isascii() and len(text) <= most:
        return text
    from rich.cells import cell_len, set_cell_size  # not at the top: most calls wait for less than a second

    if cell_len(text) <= most:
        return text
    return f"{set_cell_size(text, most - 1).rstrip()}…" if most > 1 else ""


def _write(text: str) -> None:
    with suppress(OSError):
        os.write(sys.stderr.fileno(), text.encode(sys.stderr.encoding or "utf-8", "replace"))
