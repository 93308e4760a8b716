"""The control paths: what a test says to the double beside calling AWS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.fakeaws import fargate, schedule
from tests.support.fakeaws.faults import Faults
from tests.support.fakeaws.options import OPTIONS

FAULTS = Faults()
#: Every call of the operator's commands: service, and action as faults have it; for S3 with its query.
CALLS: set[tuple[str, str]] = set()


#: What a test may change while it runs, as it was at the start.
_AT_START = {"lag_s": OPTIONS.lag_s, "spot_s": OPTIONS.spot_s, "vague_start": OPTIONS.vague_start, "outbound": True}
_REACH = frozenset(OPTIONS.reach)


def reset() -> None:
    """End all tasks, and forget everything; the options are those of the start."""
    from moto.moto_api._internal.models import moto_api_backend

    FAULTS.replace([])
    CALLS.clear()
    fargate.end_all()
    for name, value in _AT_START.items():
        setattr(OPTIONS, name, value)
    OPTIONS.reach = set(_REACH)
    moto_api_backend.reset()


def _faults(given: dict[str, Any]) -> Any:
    if "faults" in given:
        FAULTS.replace(given["faults"])
    return FAULTS.shown()


def _reset(_given: dict[str, Any]) -> Any:
    reset()
    return {}


def _options(given: dict[str, Any]) -> Any:
    """Change those that a test may change while it runs."""
    OPTIONS.reach |= set(given.pop("reach", []))
    for name, value in given.items():
        setattr(OPTIONS, name, type(_AT_START[name])(value))
    return {}


CONTROLS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "/_faults": _faults,
    "/_calls": lambda _given: sorted(CALLS),
    "/_reset": _reset,
    "/_options": _options,
    "/_interrupt": lambda given: {"stopped": fargate.interrupt(given["id"])},
    "/_play": lambda given: {"played": fargate.play(given["id"], given.get("exits"), given.get("reason", ""))},
    "/_fire": lambda given: schedule.fire(given["schedule"], given.get("at"), given.get("group", "default")),
    "/_tasks": lambda _given: fargate.shown(),
}
