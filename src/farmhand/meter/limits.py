"""Adaptive limits: how many requests may be open, and when the next one may be sent, following the API's answers.

There is one gate per key and model, as the provider counts. Source: its "Rate limits" and "Errors" pages. All methods
belong to one event loop. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from bisect import insort
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from farmhand.core.readable import counted
from farmhand.core.task import Usage
from farmhand.meter.errors import ApiError
from farmhand.meter.headroom import Bucket, read_headers

#: The window before anything is known about the limits, and its maximum.
FIRST_WINDOW = 32
LAST_WINDOW = 1024
#: Number of gates to keep. Beyond it, idle gates are dropped.
_KEPT = 256
#: Weight of the newest request in the moving averages.
_NEWEST = 0.2
#: Upper bounds for one request: input tokens per byte (a short one with tools), and output tokens.
_MOST_PER_BYTE = 10.0
_MOST_OUTPUT = 1_000_000
#: Pause after a refusal with `retry-after`, however short that is: doubled each time, up to the maximum. Seconds.
_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0
#: The kinds of limit that count an answer's tokens.
_WITH_OUTPUT = ("tokens", "output-tokens")
Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[object]]


class WaitReason(msgspec.Struct):
    """Why `tasks` tasks wait: a stable reason, until when (Unix seconds, None if unknown), and one line for people."""

    reason: str
    tasks: int
    until: float | None = None
    detail: str = ""


class Headroom(NamedTuple):
    """One gate's figures. `kinds` maps the headers' names to (limit per minute, what is left)."""

    fingerprint: str
    model: str
    window: int
    running: int
    waiting: int
    kinds: dict[str, tuple[int, int]]


class Ticket(NamedTuple):
    """A request that a gate let through: its number, and the input tokens sent so far, including its own."""

    number: int
    input_sent: float
    body_bytes: int


@dataclass(slots=True, eq=False)
class _Waiter:
    order: int
    body_bytes: int
    max_tokens: int
    ticket: asyncio.Future[Ticket]


class Gate:
    """The limits of one key and model. Three of them hold requests back, in order of arrival.

    - A window of open requests that grows with successes and shrinks with 429 and 529, like TCP's (RFC 5681): slow
      start, then one more per full window. The first loss halves it, and covers all requests open at that moment.
    - `retry-after`: until then nothing is sent. Afterwards a window of one lets requests go gradually, and a pause that
      grows with each such refusal in a row keeps a short `retry-after` from causing a loop.
    - Buckets that follow the `anthropic-ratelimit-*` headers: what is left, minus what was sent since, refilled.
    """

    def __init__(self, *, clock: Clock, sleep: Sleep) -> None:
        self.window = float(FIRST_WINDOW)
        self.running = 0
        self.buckets: dict[str, Bucket] = {}
        self._clock = clock
        self._sleep = sleep
        self._threshold = math.inf
        self._sent = 0
        self._lost = 0
        self._losses = 0
        self._told = 0
        self._input_sent = 0.0
        self._held_until = -math.inf
        self._held_by: ApiError | None = None
        # Use of an average request, before any is known: four bytes per token, a short answer.
        self._tokens_per_byte = 0.25
        self._output = 256.0
        #: Who waits, in order. Those who left are still in it until they notice.
        self._line: list[_Waiter] = []
        self._orders = itertools.count()
        self._alarm: tuple[float, asyncio.Task[None]] | None = None

    def order(self) -> int:
        """Return a place in the queue. A repeated request keeps its own, so that later requests do not overtake it."""
        return next(self._orders)

    async def enter(self, order: int, body_bytes: int, max_tokens: int) -> Ticket:
        """Wait until a request of this size may be sent. Each ticket ends with `leave`."""
        if not self._line and self.running < int(self.window) and self._wait_s(body_bytes, max_tokens)[0] <= 0:
            return self._let_in(body_bytes)
        waiter = _Waiter(order, body_bytes, max_tokens, asyncio.get_running_loop().create_future())
        insort(self._line, waiter, key=lambda one: one.order)
        self._release()
        try:
            return await waiter.ticket
        except asyncio.CancelledError:
            if not waiter.ticket.cancelled():
                # The request was let in at the moment of its cancellation.
                self.leave(waiter.ticket.result())
            elif waiter in self._line:
                self._line.remove(waiter)
                self._release()
            raise

    def told(self, ticket: Ticket, headers: Mapping[str, str]) -> None:
        """Follow the anthropic-ratelimit-* headers of an answer."""
        if ticket.number < self._told:
            return  # A request sent later has already reported.
        self._told = ticket.number
        now = self._clock()
        # The figures do not include all that was sent since.
        input_since = self._input_sent - ticket.input_sent
        since = {"requests": self._sent - ticket.number, "tokens": input_since, "input-tokens": input_since}
        for kind, told in read_headers(headers).items():
            if kind not in self.buckets:
                self.buckets[kind] = Bucket(told, 0.0, now)
            self.buckets[kind].follow(told, since.get(kind, 0.0), now)

    def refused(self, ticket: Ticket, problem: ApiError, *, load: bool) -> None:
        """Handle a transient refusal of `ticket`'s request: for a limit or `load` (429, 529), or for a failure."""
        told = problem.retry_after_s
        if ticket.number > self._lost and (load or told is not None):
            self._lost = self._sent
            self._losses += told is not None
            self._threshold = max(1.0, self.window / 2)
            self.window = self._threshold if told is None else 1.0
        if told is not None:
            pause = min(_LONGEST_PAUSE_S, _PAUSE_S * 2.0 ** min(self._losses, 30))
            until = self._clock() + max(told, pause)
            if until >= self._held_until:
                self._held_until, self._held_by = until, problem

    @property
    def refusal(self) -> ApiError | None:
        """Return the refusal whose `retry-after` blocks the gate now."""
        return self._held_by if self._held_until > self._clock() else None

    @property
    def held_s(self) -> float:
        """Return the seconds that are left of a refusal's `retry-after`."""
        return max(0.0, self._held_until - self._clock())

    def refused_until(self) -> ApiError:
        """Return the refusal that blocks the gate now, with the seconds that are left of its `retry-after`."""
        held = self._held_by
        left = math.ceil(self.held_s)
        code, message, status = (held.code, held.message, held.status) if held else ("rate_limit_error", "", 429)
        return ApiError(code, message, status=status, retry_after_s=left, is_transient=True)

    def leave(self, ticket: Ticket, usage: Usage | None = None, *, streamed: bool = True) -> None:
        """End the request. `usage` of a complete answer counts as a success and updates the averages."""
        if usage is not None:
            self._losses = 0
            busy = bool(self._line) or self.running >= self.window / 2
            if busy and ticket.number > self._lost and self.window < LAST_WINDOW:
                # An unused window shows nothing about the API's capacity, and neither do requests from before a loss.
                self.window += 1.0 if self.window < self._threshold else 1.0 / self.window
            self._learn(ticket, usage, streamed=streamed)
        self.running -= 1
        self._release()

    def _learn(self, ticket: Ticket, usage: Usage, *, streamed: bool) -> None:
        counted = usage.input_tokens + usage.cache_creation_input_tokens
        # An answer may report anything: ignore impossible values.
        per_byte = min(max(counted, 0) / max(1, ticket.body_bytes), _MOST_PER_BYTE)
        self._tokens_per_byte += _NEWEST * (per_byte - self._tokens_per_byte)
        self._output += _NEWEST * (min(max(usage.output_tokens, 0), _MOST_OUTPUT) - self._output)
        if streamed:
            # Its headers came before its output.
            for kind in _WITH_OUTPUT:
                if kind in self.buckets:
                    self.buckets[kind].level -= usage.output_tokens

    # --- the next request ---------------------------------------------------------------------------------------------

    def _let_in(self, body_bytes: int) -> Ticket:
        tokens = body_bytes * self._tokens_per_byte
        self._sent += 1
        self._input_sent += tokens
        self.running += 1
        costs = {"requests": 1.0, "tokens": tokens, "input-tokens": tokens}
        for kind, bucket in self.buckets.items():
            bucket.level -= costs.get(kind, 0.0)
        return Ticket(self._sent, self._input_sent, body_bytes)

    def _wait_s(self, body_bytes: int, max_tokens: int) -> tuple[float, str]:
        """Return the seconds until a request of this size fits all limits but the window, and what it waits for."""
        now = self._clock()
        longest = (self._held_until - now, "retry-after")
        if not self.buckets:
            return longest
        tokens = body_bytes * self._tokens_per_byte
        output = min(self._output, max_tokens)
        needs = {"requests": 1.0, "input-tokens": tokens, "output-tokens": output, "tokens": tokens + output}
        # Output is counted as it is produced: that of open requests is still to come.
        promised = self._output * self.running
        for kind, bucket in self.buckets.items():
            wait = bucket.wait_s(needs[kind], promised if kind in _WITH_OUTPUT else 0.0, now)
            if wait > longest[0]:
                longest = (wait, kind)
        return longest

    def _release(self) -> None:
        """Let in the requests that may go now, and schedule a check for when the next one may."""
        while self._line and self.running < int(self.window):
            first = self._line[0]
            wait, _ = self._wait_s(first.body_bytes, first.max_tokens)
            if wait > 0:
                self._wake_in(wait)
                return
            del self._line[0]
            if not first.ticket.done():
                first.ticket.set_result(self._let_in(first.body_bytes))

    def _wake_in(self, seconds: float) -> None:
        seconds = max(seconds, 1e-6)  # A shorter sleep might not advance the clock, which would loop endlessly.
        at = self._clock() + seconds
        if self._alarm is not None:
            if self._alarm[0] <= at + 0.001:
                return
            self._alarm[1].cancel()
        self._alarm = (at, asyncio.get_running_loop().create_task(self._ring(seconds)))

    async def _ring(self, seconds: float) -> None:
        await self._sleep(seconds)
        self._alarm = None
        self._release()

    # --- status -------------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Return whether no request is open or waiting and no block is active."""
        return not self.running and not self._line and self.refusal is None

    def waiting(self, model: str) -> WaitReason | None:
        """Return why requests wait here, or None."""
        if not self._line:
            return None
        wait, kind = self._wait_s(self._line[0].body_bytes, self._line[0].max_tokens)
        if wait <= 0:
            under_way = counted(self.running, "request is", "requests are")
            detail = f"{model}: {under_way} under way, as many as the API bears"
            return WaitReason("rate_limit", len(self._line), None, detail)
        why = "the API asked to wait (retry-after)" if kind == "retry-after" else f"the API's limit of {kind} a minute"
        return WaitReason("rate_limit", len(self._line), time.time() + wait, f"{model}: {why}")

    def headroom(self, fingerprint: str, model: str) -> Headroom:
        """Return the gate's current figures."""
        now = self._clock()
        kinds = {kind: (int(b.limit), max(0, int(b.now(now)))) for kind, b in self.buckets.items()}
        return Headroom(fingerprint, model, int(self.window), self.running, len(self._line), kinds)


class Limits:
    """The gates by key and model."""

    def __init__(self, *, clock: Clock, sleep: Sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._gates: dict[tuple[str, str], Gate] = {}

    def gate(self, fingerprint: str, model: str) -> Gate:
        """Return the gate of one key and model."""
        found = self._gates.get((fingerprint, model))
        if found is None:
            if len(self._gates) >= _KEPT:
                self._gates = {name: gate for name, gate in self._gates.items() if not gate.idle}
            found = Gate(clock=self._clock, sleep=self._sleep)
            self._gates[fingerprint, model] = found
        return found

    def waiting(self) -> list[WaitReason]:
        """Return why requests wait, one entry per gate with waiting requests."""
        found = (gate.waiting(model) for (_, model), gate in self._gates.items())
        return [one for one in found if one is not None]

    def headroom(self) -> list[Headroom]:
        """Return the figures of all gates."""
        return [gate.headroom(fingerprint, model) for (fingerprint, model), gate in self._gates.items()]
