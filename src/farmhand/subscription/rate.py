"""How much of a plan is used, as the CLI says it, and when nothing more may be drawn from it.

A plan that is used up goes on as paid extra usage, with an ordinary answer and exit status 0, where that is switched
on. Only `isUsingOverage` tells.
"""

from __future__ import annotations

import math
import time
from typing import Any, Literal

import msgspec

#: Seconds for which nothing is drawn if the CLI does not say when a window begins again, and the least at all.
_UNTOLD_S = 3600.0
_LEAST_S = 10.0
_DAY_S = 86_400.0
_NAMES = {"five_hour": "5-hour", "seven_day": "weekly"}


class PlanWindow(msgspec.Struct, frozen=True, rename="camel"):
    """A window of the plan: the part of it that is used, and the Unix time in seconds at which it begins again."""

    utilization: float = 0.0
    resets_at: float = 0.0


class PlanUse(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A `rate_limit_event`'s `rate_limit_info`, as CLI 2.1.330 writes it: see `read`.

    Other releases tell of one window only: `utilization` is that of `rate_limit_type`.
    """

    status: str = "allowed"
    resets_at: float = 0.0
    rate_limit_type: str = ""
    utilization: float = 0.0
    is_using_overage: bool = False
    unified_windows: dict[str, PlanWindow] = {}

    @property
    def most(self) -> tuple[str, PlanWindow] | None:
        """Return the name and the state of the window that is used most; None if none is told."""
        return max(self.unified_windows.items(), key=lambda item: item[1].utilization, default=None)


class PlanLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing more is drawn from the plan, and until when (Unix seconds)."""

    code: Literal["overage", "used_up", "reserve"]
    words: str
    until: float


def read(info: Any) -> PlanUse | None:
    """Return what a `rate_limit_info` says; None if it is none that can be understood."""
    try:
        use = msgspec.convert(info, PlanUse)
    except msgspec.ValidationError:
        return None
    if not use.utilization or use.rate_limit_type in use.unified_windows:
        return use
    told = {use.rate_limit_type: PlanWindow(utilization=use.utilization, resets_at=use.resets_at)}
    return msgspec.structs.replace(use, unified_windows=use.unified_windows | told)


def limit(use: PlanUse, *, reserve: float, allow_overage: bool, now: float | None = None) -> PlanLimit | None:
    """Return why and until when nothing more is drawn, None if the plan may be used.

    `reserve` is the part of each window that is left to the operator's own sessions. With `allow_overage` they pay
    for what goes beyond the plan.
    """
    now = time.time() if now is None else now
    if use.is_using_overage:
        if allow_overage:
            return None
        until = _until(use.resets_at, now)
        words = f"the plan is used up and would be billed as extra usage; closed until {clock(until, now)}"
        return PlanLimit(code="overage", words=words, until=until)
    if use.status == "rejected":
        until = _until(use.resets_at, now)
        what = _window(use.rate_limit_type)
        return PlanLimit(code="used_up", words=f"{what} is used up; resets {clock(until, now)}", until=until)
    full = [(name, window) for name, window in use.unified_windows.items() if window.utilization > 1 - reserve]
    if not full:
        return None
    name, window = max(full, key=lambda item: item[1].resets_at)
    until = _until(window.resets_at, now)
    used = f"{_window(name)} is used to {window.utilization:.0%}".replace("%", " %")
    words = f"{used}, the rest is kept for your own sessions; resets {clock(until, now)}"
    return PlanLimit(code="reserve", words=words, until=until)


def clock(at: float, now: float | None = None) -> str:
    """Return a time as people here write it: `19:25`, or with the day if that is not within a day."""
    form = "%H:%M" if at - (time.time() if now is None else now) < _DAY_S else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(at))


def _window(name: str) -> str:
    return f"the plan's {_NAMES.get(name, 'current')} window"


def _until(resets_at: float, now: float) -> float:
    known = math.isfinite(resets_at) and 0 < resets_at < now + 40 * _DAY_S
    return max(resets_at, now + _LEAST_S) if known else now + _UNTOLD_S
