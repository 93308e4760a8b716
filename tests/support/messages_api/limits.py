"""Rate limits: what the headers tell, and token buckets that refuse where a test has set some.

Source: the provider's "Rate limits" page, read 2026-11. Buckets refill steadily; each model has its own; tokens read
from the cache do not count as input; output counts as it was produced, whatever `max_tokens` asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from tests.support.messages_api.errors import ApiError

#: Limits a minute that the headers tell of where nothing else is set; nothing enforces them, and they are so wide
#: that no client which goes by the headers is slowed down.
DEFAULTS = {"requests": 4_000_000, "input-tokens": 4_000_000_000, "output-tokens": 800_000_000}
_WINDOW_S = 60.0
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Clock = Callable[[], float]


class Limits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Limits to enforce; one that is not set does not refuse.

    `requests`, `input_tokens`, `output_tokens`: a minute and model, for /v1/messages. `concurrent`: requests to
    /v1/messages under way at once, all models together; above it the answer is `concurrent_status`.
    `batch_requests`: calls a minute of the Message Batches endpoints. `batch_queue`: requests of all batches that wait
    to be processed. `minute_s`: seconds in which an empty bucket fills, for tests in a hurry. `rounded`: token counts
    in the headers rounded to the nearest thousand, as the provider does, which can tell of more than there is.
    """

    requests: _Count | None = None
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    concurrent: _Count | None = None
    concurrent_status: Literal[429, 529] = 529
    batch_requests: _Count | None = None
    batch_queue: _Count | None = None
    minute_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    rounded: bool = False


class Limited(ApiError):
    """A refusal by a limit; `name` says which."""

    def __init__(self, name: str, message: str, *, status: int = 429, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers=headers)
        self.name = name


class Bucket:
    """Full at the start with `limit` tokens; an empty one is full again after `period_s`."""

    def __init__(self, limit: int, period_s: float, clock: _Clock) -> None:
        self.limit = limit
        self._rate = limit / period_s
        self._clock = clock
        self._level = float(limit)
        self._at = clock()

    def left(self) -> float:
        """Tokens in the bucket now; below zero where more was used than there was."""
        now = self._clock()
        self._level = min(float(self.limit), self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level

    def take(self, count: int) -> None:
        """Use `count` tokens, there or not."""
        self._level = self.left() - count

    def wait_s(self, count: float) -> float:
        """Seconds until `count` tokens are there; a full bucket's time where it never holds as many."""
        return max(0.0, min(float(self.limit), count) - self.left()) / self._rate

    def retry_after(self, count: int) -> str:
        """The whole seconds after which `count` tokens are there, for the header."""
        wait = self.wait_s(count) if count <= self.limit else self.limit / self._rate
        return str(max(1, math.ceil(wait)))


class RateLimits:
    """The limits in force, and how much of each is used."""

    def __init__(self, limits: Limits | None = None, *, clock: _Clock = time.monotonic) -> None:
        self._clock = clock
        self.running = self.peak = 0
        self.set(limits)

    def set(self, limits: Limits | None) -> None:
        """Put limits in force, with full buckets; None: refuse nothing."""
        self.limits = limits
        self.peak = self.running
        self._models: dict[str, dict[str, Bucket]] = {}
        self._batch = self._bucket(limits.batch_requests) if limits and limits.batch_requests else None
        self._window = -math.inf
        self._used = dict.fromkeys(DEFAULTS, 0)

    def _bucket(self, limit: int) -> Bucket:
        return Bucket(limit, self.limits.minute_s if self.limits else _WINDOW_S, self._clock)

    def _set_limit(self, name: str) -> int | None:
        found: int | None = getattr(self.limits, name.replace("-", "_"), None)
        return found

    def _buckets(self, model: str) -> dict[str, Bucket]:
        if model not in self._models:
            self._models[model] = {n: self._bucket(self._set_limit(n) or most) for n, most in DEFAULTS.items()}
        return self._models[model]

    def admit(self, model: str, input_tokens: int) -> None:
        """Count a request for /v1/messages, or refuse it."""
        if self.limits is None:
            self._roll()
            self._used["requests"] += 1
            self._used["input-tokens"] += input_tokens
            return
        buckets = self._buckets(model)
        for name, count in (("requests", 1), ("input-tokens", input_tokens), ("output-tokens", 1)):
            bucket = buckets[name]
            if self._set_limit(name) is not None and bucket.left() < count:
                raise Limited(
                    name,
                    _refusal(name, bucket),
                    headers={**self.headers(model), "retry-after": bucket.retry_after(count)},
                )
        buckets["requests"].take(1)
        buckets["input-tokens"].take(input_tokens)

    def produced(self, model: str, output_tokens: int) -> None:
        """Count what a request has produced."""
        if self.limits is None:
            self._used["output-tokens"] += output_tokens
        else:
            self._buckets(model)["output-tokens"].take(output_tokens)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for requests under way; refuses where all are taken."""
        most = self.limits.concurrent if self.limits else None
        if self.limits is not None and most is not None and self.running >= most:
            status = self.limits.concurrent_status
            text = "Number of concurrent connections has exceeded your rate limit." if status == 429 else ""
            raise Limited("concurrent", text, status=status)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            yield
        finally:
            self.running -= 1

    def admit_batch_call(self) -> None:
        """Count a call of a Message Batches endpoint, or refuse it."""
        if self._batch is None:
            return
        if self._batch.left() < 1:
            raise Limited(
                "batch-requests", _refusal("requests", self._batch), headers={"retry-after": self._batch.retry_after(1)}
            )
        self._batch.take(1)

    def admit_to_queue(self, waiting: int, new: int) -> None:
        """Refuse a batch whose requests do not fit behind those that wait."""
        most = self.limits.batch_queue if self.limits else None
        if most is not None and waiting + new > most:
            raise Limited("batch-queue", f"This batch would exceed your limit of {most} batch requests in processing.")

    def _roll(self) -> None:
        if time.time() - self._window >= _WINDOW_S:
            self._window = time.time()
            self._used = dict.fromkeys(DEFAULTS, 0)

    def _state(self, model: str) -> dict[str, tuple[int, int, float]]:
        """Limit, what is left, and when it is full again (seconds since the epoch), by name."""
        if self.limits is None:
            self._roll()
            end = self._window + _WINDOW_S
            return {n: (most, max(0, most - self._used[n]), end) for n, most in DEFAULTS.items()}
        return {
            n: (b.limit, max(0, math.floor(b.left())), math.ceil(time.time() + b.wait_s(b.limit)))
            for n, b in self._buckets(model).items()
        }

    def headers(self, model: str) -> dict[str, str]:
        """The anthropic-ratelimit-* headers."""
        state = self._state(model)
        into, out = state["input-tokens"], state["output-tokens"]
        state["tokens"] = (into[0] + out[0], into[1] + out[1], max(into[2], out[2]))
        found: dict[str, str] = {}
        for name, (limit, left, reset) in state.items():
            if self.limits is not None and self.limits.rounded and name.endswith("tokens"):
                left = round(left, -3)
            prefix = f"anthropic-ratelimit-{name}"
            found[f"{prefix}-limit"] = str(limit)
            found[f"{prefix}-remaining"] = str(left)
            found[f"{prefix}-reset"] = datetime.fromtimestamp(reset, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return found


def _refusal(name: str, bucket: Bucket) -> str:
    what = name.replace("-", " ")
    return f"This request would exceed your organization's rate limit of {bucket.limit:,} {what} per minute."
