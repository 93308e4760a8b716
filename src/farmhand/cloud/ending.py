"""How an agent container ends: its exit codes as an exception, and the clock that SIGTERM starts."""

from __future__ import annotations

import signal
import sys
import threading
import time
from decimal import Decimal

import msgspec

from farmhand.core.keys import redact
from farmhand.core.shard import STOP_S, TaskText

#: Seconds of a sleep after which a signal is noticed.
_GLANCE_S = 0.2
#: Seconds between two lines of a task's text, and the most characters of one: Docker cuts a line at 16 KB.
_TEXT_S, _TEXT_MOST = 1.0, 2000


class ContainerEnds(Exception):
    """The container ends with this exit code; the message is its last line."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class StopClock:
    """The time since SIGTERM. Its handler does nothing but note the time: it may run between any two instructions.

    `kill_s` is the time from SIGTERM to SIGKILL. The container ends within 11/12 of it: 110 of 120 s.
    """

    def __init__(self, kill_s: float = STOP_S) -> None:
        self.kill_s = kill_s
        self.at: float | None = None

    def listen(self) -> None:
        """Note SIGTERM and SIGINT from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        if self.at is None:
            self.at = time.monotonic()

    @property
    def asked(self) -> bool:
        """Return whether the container has to end."""
        return self.at is not None

    @property
    def until(self) -> float:
        """Return the moment (monotonic clock) at which all must be done; without SIGTERM it is far away."""
        return float("inf") if self.at is None else self.at + self.kill_s * 11 / 12

    @property
    def last_tasks_s(self) -> float:
        """Return how long running tasks may go on."""
        return self.kill_s / 2

    def pause(self, seconds: float) -> bool:
        """Wait, at most until SIGTERM. Return whether it has come."""
        until = time.monotonic() + seconds
        while not self.asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _GLANCE_S))
        return self.asked


def count(cost_usd: Decimal, requests: int) -> None:
    """Write a line of JSON to the container's log, from which aws/watch.yaml makes its metrics."""
    sys.stderr.write(f'{{"cost_usd": {cost_usd:f}, "requests": {requests}}}\n')
    sys.stderr.flush()


def say(line: str) -> None:
    """Write a line to the container's log, without anything that looks like a key."""
    sys.stderr.write(f"farmhand: {redact(' '.join(line.split()))}\n")
    sys.stderr.flush()


class TextLog:
    """A task's text as lines of TaskText in the container's log, a line a second. Without `on` it is nowhere."""

    def __init__(self, *, on: bool) -> None:
        self._on, self._lock = on, threading.Lock()
        self._text, self._written_at = "", float("-inf")

    def add(self, text: str) -> None:
        """Take a piece of the text; from any thread."""
        if self._on:
            with self._lock:
                self._text += text

    def flush(self, *, all_of_it: bool = False) -> None:
        """Write what has come since, if it is time, or `all_of_it` at once."""
        now = time.monotonic()
        if not all_of_it and now - self._written_at < _TEXT_S:
            return
        with self._lock:
            text, self._text = redact(self._text), ""
        if text:
            self._written_at = now
        for start in range(0, len(text), _TEXT_MOST):
            line = TaskText(text=text[start : start + _TEXT_MOST])
            sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
        sys.stderr.flush()
