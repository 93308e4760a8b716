"""Turns, facts and states for the tests of the gateway's deciding half."""

from __future__ import annotations

from typing import Any

import msgspec

from farmhand.gateway.turn import BackendState, Carries, Dialect, Facts, Reason, Turn

DOWN = Reason("down", "not running (connection refused, 127.0.0.1:8080)")
SHUT = Reason("shut", "off")
DAY, CENT = 2 * 10**12, 10**10


def turn(dialect: Dialect = "messages", *, carries: Carries | None = None, **more: Any) -> Turn:
    """A turn; `fields` are given as values, `headers` as they are."""
    fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in more.pop("fields", {}).items()}
    given: dict[str, Any] = {"model": "claude-opus-4-6", "streamed": False, "tokens": 100, **more}
    return Turn(dialect=dialect, carries=carries or Carries(), fields=fields, **given)


def facts(**more: Any) -> Facts:
    """The facts of a text turn, but for what is given; a name of `Carries` is put there."""
    carried = {name: more.pop(name) for name in Carries.__struct_fields__ if name in more}
    given: dict[str, Any] = {"dialect": "messages", "work_class": "chat", "class_source": "derived", "tokens": 100}
    return Facts(carries=Carries(**carried), **(given | more))


def local(name: str = "qwen", **more: Any) -> BackendState:
    """A local server that is up."""
    return BackendState(name=f"local:{name}", residency="local", **more)


def plan(**more: Any) -> BackendState:
    """An open subscription."""
    return BackendState(name="subscription", residency="subscription", **more)


def metered(**more: Any) -> BackendState:
    """An open metered backend: up to US$ 0.50 for a turn and US$ 2 a day."""
    given: dict[str, Any] = {"turn_pico": 50 * CENT, "day_pico": DAY, "spent_pico": 0, **more}
    return BackendState(name="metered", residency="metered", **given)
