from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.meter.headroom import KINDS, Bucket, RateLimitHeader, read_headers

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def headers(remaining: object, reset: str = "2026-11-24T12:00:30Z", limit: object = 60, **more: str) -> dict[str, str]:
    prefix = "anthropic-ratelimit-requests"
    return {f"{prefix}-limit": str(limit), f"{prefix}-remaining": str(remaining), f"{prefix}-reset": reset, **more}


def test_a_bucket_that_runs_low_tells_how_fast_it_fills() -> None:
    assert read_headers(headers(10), NOW.timestamp()) == {"requests": RateLimitHeader(60, 10, 30)}
    assert read_headers(headers(40), NOW.timestamp()) == {"requests": RateLimitHeader(60, 40, None)}


@pytest.mark.parametrize(("ahead_s", "full_in"), [(0.0, 30), (1.5, 28.5), (3600, 30), (-3600, 30)])
def test_a_clock_that_is_wrong_does_not_count(ahead_s: float, full_in: float) -> None:
    found = read_headers(headers(0, date=format_datetime(NOW, usegmt=True)), NOW.timestamp() + ahead_s)
    assert found["requests"].full_in_s == pytest.approx(full_in)


@pytest.mark.parametrize(
    "wrong",
    [headers(-1), headers("many"), headers(""), headers(5, limit=0), headers(5, limit="x"), headers("9" * 400), {}],
)
def test_what_is_not_as_documented_is_left_out(wrong: dict[str, str]) -> None:
    assert not read_headers(wrong)


@pytest.mark.parametrize("reset", ["", "soon", "2026-11-24T12:00:30", "12"])
def test_without_a_time_of_reset_a_minute_is_taken(reset: str) -> None:
    told = read_headers(headers(0, reset), NOW.timestamp())["requests"]
    assert told.full_in_s is None
    assert Bucket(told, 0, 0.0).wait_s(1, 0, 0.0) == pytest.approx(1.0)


@given(
    text=st.text(max_size=30),
    name=st.sampled_from([f"anthropic-ratelimit-{k}-{w}" for k in KINDS for w in ("reset", "limit")]),
)
def test_any_header_is_borne(text: str, name: str) -> None:
    read_headers({**headers(1), name: text, "date": text})


@given(
    limit=st.integers(1, 10**6),
    part=st.floats(0, 1),
    full_in=st.none() | st.floats(0, 10**6),
    need=st.floats(0, 10**7),
    since=st.floats(0, 1000),
)
def test_a_wait_ends_within_a_minute_or_so_whatever_is_told(
    limit: int, part: float, full_in: float | None, need: float, since: float
) -> None:
    bucket = Bucket(RateLimitHeader(limit, int(limit * part), full_in), since, 0.0)
    wait = bucket.wait_s(need, 0.0, 0.0)
    assert 0 <= wait <= 60 * (1 + since / limit) + 1
    assert bucket.wait_s(need, 0.0, wait + 1e-6 * (1 + wait)) <= 1e-3


def test_what_was_sent_since_is_not_there_any_more() -> None:
    bucket = Bucket(RateLimitHeader(60, 10, 50), since=4, now=0.0)
    assert bucket.now(0.0) == 6
    assert bucket.now(2.0) == 8
    assert bucket.now(1000.0) == 60
