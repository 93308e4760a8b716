"""When nothing more is drawn from a plan, by what the real CLI 2.1.330 says of it."""

from __future__ import annotations

from typing import Any

import pytest

from farmhand.subscription import rate

NOW = 1_796_000_000.0
HOUR = NOW + 3600


def said(**more: Any) -> dict[str, Any]:
    """A `rate_limit_info` as the CLI writes it."""
    return {
        "status": "allowed",
        "resetsAt": int(HOUR),
        "rateLimitType": "five_hour",
        "overageStatus": "rejected",
        "isUsingOverage": False,
        "unifiedWindows": {
            "five_hour": {"utilization": 0.1, "resetsAt": int(HOUR)},
            "seven_day": {"utilization": 0.2, "resetsAt": int(NOW + 86400 * 3), "status": "allowed"},
        },
        **more,
    }


def windows(five_hour: float, seven_day: float = 0.0) -> dict[str, Any]:
    both = {"five_hour": (five_hour, HOUR), "seven_day": (seven_day, NOW + 86400 * 3)}
    return {name: {"utilization": used, "resetsAt": int(at)} for name, (used, at) in both.items()}


@pytest.mark.parametrize(
    ("info", "code", "until"),
    [
        (said(), None, 0.0),
        (said(unifiedWindows=windows(0.8)), None, 0.0),
        (said(unifiedWindows=windows(0.85)), "reserve", HOUR),
        # One window only (rynfar/meridian#436).
        (said(unifiedWindows={}, utilization=0.85), "reserve", HOUR),
        (said(unifiedWindows={}, utilization=0.8), None, 0.0),
        (said(utilization=0.85), None, 0.0),
        (said(unifiedWindows=windows(0.85, 0.9)), "reserve", NOW + 86400 * 3),
        (said(status="rejected"), "used_up", HOUR),
        (said(status="rejected", isUsingOverage=True), "overage", HOUR),
        (said(status="rejected", resetsAt=0), "used_up", NOW + 3600),
        (said(status="rejected", resetsAt=NOW - 5), "used_up", NOW + 10),
        (said(status="rejected", resetsAt=1e18), "used_up", NOW + 3600),
        ({"status": "allowed", "isUsingOverage": False}, None, 0.0),
    ],
)
def test_what_closes_a_plan(info: dict[str, Any], code: str | None, until: float) -> None:
    use = rate.read(info)
    assert use is not None
    found = rate.limit(use, reserve=0.2, allow_overage=False, now=NOW)
    assert (found.code if found else None, found.until if found else 0.0) == (code, until)


def test_paid_extra_usage_goes_on_only_where_it_is_allowed() -> None:
    use = rate.read(said(status="rejected", isUsingOverage=True, unifiedWindows=windows(1.0)))
    assert use is not None
    assert rate.limit(use, reserve=0.2, allow_overage=True, now=NOW) is None
    closed = rate.limit(use, reserve=0.0, allow_overage=False, now=NOW)
    assert closed is not None
    assert "billed as extra usage" in closed.words


def test_the_words_name_window_part_and_time() -> None:
    use = rate.read(said(unifiedWindows=windows(0.81)))
    assert use is not None
    found = rate.limit(use, reserve=0.2, allow_overage=False, now=NOW)
    assert found is not None
    wanted = (
        f"the plan's 5-hour window is used to 81 %, the rest is kept for your own sessions; resets {rate.clock(HOUR)}"
    )
    assert found.words == wanted
    assert rate.clock(NOW + 86400 * 3, NOW).startswith("2026-")


@pytest.mark.parametrize("info", [None, 7, [], {"status": 7}, {"unifiedWindows": [1]}, {"isUsingOverage": "yes"}])
def test_what_is_no_limit_says_nothing(info: Any) -> None:
    assert rate.read(info) is None
