"""The API's response headers on rate limits and retry delays, and a token bucket that follows them.

Source: the provider's "Rate limits" page, section "Response headers": `anthropic-ratelimit-KIND-limit`, `-remaining`,
and `-reset`, the time (RFC 3339) when the bucket will be full again. Buckets are refilled continuously.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

KINDS = ("requests", "tokens", "input-tokens", "output-tokens")
_NAMES = {
    kind: tuple(f"anthropic-ratelimit-{kind}-{what}" for what in ("remaining", "limit", "reset")) for kind in KINDS
}
#: Limits are per minute: an empty bucket is full after this long at the latest.
_MINUTE_S = 60.0
#: The longest `retry-after` to obey, in seconds; then one request tries.
LONGEST_S = 600.0
#: Smaller clock differences are ignored: the date header has whole seconds only.
_SKEW_S = 2.0


class RateLimitHeader(NamedTuple):
    """One kind of limit from an answer's headers. `full_in_s` is None if unknown."""

    limit: float
    remaining: float
    full_in_s: float | None


def read_headers(headers: Mapping[str, str], wall: float | None = None) -> dict[str, RateLimitHeader]:
    """Return the limits in `headers` by kind. Values that are not as documented are ignored.

    `wall` is this machine's time (Unix seconds; None: now). If the answer's own `date` differs, it is used instead,
    since `reset` follows the same clock.
    """
    found: dict[str, RateLimitHeader] = {}
    for kind, (remaining, limited, reset) in _NAMES.items():
        left = _count(headers.get(remaining))
        limit = _count(headers.get(limited)) if left is not None else None
        if not limit or left is None:
            continue
        # The refill rate matters only for a bucket that runs low.
        full_at = _instant(headers.get(reset, "")) if left * 2 < limit else None
        full_in = None if full_at is None else max(0.0, full_at - _now(headers, wall))
        found[kind] = RateLimitHeader(limit, left, full_in)
    return found


def _now(headers: Mapping[str, str], wall: float | None) -> float:
    wall = time.time() if wall is None else wall
    date = _date(headers.get("date", ""))
    return wall if date is None or abs(date - wall) < _SKEW_S else date


@lru_cache(maxsize=64)
def _count(text: str | None) -> float | None:
    return float(text) if text and len(text) <= 15 and text.isascii() and text.isdecimal() else None


@lru_cache(maxsize=64)
def _instant(text: str) -> float | None:
    try:
        value = datetime.fromisoformat(text)
        return value.timestamp() if value.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=8)
def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the API wants a retry, above 0 and at most LONGEST_S, or None if it does not say.

    `retry-after-ms` takes precedence over `retry-after`, in seconds or as an HTTP date, as in the provider's SDKs. A
    value that is not a number above 0 is ignored.
    """
    told = headers.get("retry-after", "")
    seconds = _positive(headers.get("retry-after-ms", ""), 1000.0) or _positive(told, 1.0)
    if seconds is None and (date := _date(told)) is not None:
        seconds = date - _now(headers, None)
    return min(seconds, LONGEST_S) if seconds is not None and seconds > 0 else None


def _positive(text: str, unit: float) -> float | None:
    # Only Python accepts underscores, digits of other scripts, and words as numbers.
    if not text.isascii() or "_" in text or "n" in text.lower():
        return None
    try:
        value = float(text) / unit
    except ValueError:
        return None
    if math.isinf(value):
        return LONGEST_S if text.strip().isdecimal() else None
    return value if value > 0 else None


class Bucket:
    """A token bucket for one kind of limit: `level` at time `at`, refilled at `rate` per second up to `limit`."""

    __slots__ = ("at", "level", "limit", "rate")

    def __init__(self, told: RateLimitHeader, since: float, now: float) -> None:
        self.limit = 0.0
        self.follow(told, since, now)

    def follow(self, told: RateLimitHeader, since: float, now: float) -> None:
        """Follow an answer's headers. `since` is what was sent after its request, which they may not include."""
        if told.limit != self.limit:
            self.rate = told.limit / _MINUTE_S
        self.limit = told.limit
        self.level = told.remaining - since
        self.at = now
        if told.full_in_s is not None:
            self.rate = max(told.limit / _MINUTE_S, (told.limit - told.remaining) / max(told.full_in_s, 0.5))

    def now(self, now: float) -> float:
        """Update `level` to time `now` and return it. A debt never exceeds a minute, whatever an answer reported."""
        self.level = min(self.limit, max(self.level, -self.limit) + (now - self.at) * self.rate)
        self.at = now
        return self.level

    def wait_s(self, need: float, promised: float, now: float) -> float:
        """Return the seconds until `need` is left besides what is `promised`. A full bucket is always enough."""
        lack = min(self.limit, math.ceil(need) + promised) - self.now(now)
        return lack / self.rate if lack > 0 else 0.0
