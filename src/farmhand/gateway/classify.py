"""What the policy sees of a turn: its class and its facts. No text of a prompt gets from here into a fact."""

from __future__ import annotations

import re
from typing import Any, cast, get_args

import msgspec

from farmhand.gateway import session
from farmhand.gateway.labels import labels_of
from farmhand.gateway.tables import Alias, GatewayConfig
from farmhand.gateway.turn import BadRequest, ClassSource, Facts, Residency, Turn, WorkClass

CLASS_HEADER = "X-Farmhand-Work-Class"
RESIDENCY_HEADER = "X-Farmhand-Residency"
#: How an alias is written as a model: plain, as clients with providers do, and for Claude Code's picker, which shows
#: only ids that begin with `claude`.
_PREFIXES = ("", "farmhand/", "claude-farmhand-")
#: The most input tokens of a harness's request for itself. Claude Code 2.1.332 asks for a title with 4 KB.
_BACKGROUND_TOKENS = 4000
_HOSTED = re.compile(r"[a-z0-9_]{1,64}")


def facts(turn: Turn, path_class: str | None, config: GatewayConfig, *, most_pico: int | None = None) -> Facts:
    """Return the facts of a turn that came below `/c/{path_class}/`, or None if it came below no such path.

    `most_pico` is the most that a metered answer may cost. Raise BadRequest if a header or the path names no class, or
    a header no residency.
    """
    carries = turn.carries
    alias = alias_of(turn.model, config) or Alias()
    work_class, source = _class_of(turn, path_class, alias)
    shaped = carries.schema and not (carries.tools or carries.hosted_tools or carries.tool_history)
    known = session.key(turn)
    hosted = tuple(name if _HOSTED.fullmatch(name) else "other" for name in carries.hosted_tools)
    return Facts(
        dialect=turn.dialect,
        work_class=work_class,
        class_source=source,
        # The types come from the client: in a form that can hold words they could be the prompt's.
        carries=msgspec.structs.replace(carries, hosted_tools=hosted) if hosted != carries.hosted_tools else carries,
        tokens=turn.tokens,
        max_tokens=turn.max_tokens,
        background=shaped and turn.tokens <= _BACKGROUND_TOKENS,
        session=known,
        only=_named(turn.headers.get(RESIDENCY_HEADER.lower()), RESIDENCY_HEADER, Residency),
        backend=alias.backend,
        most_pico=most_pico,
        labels=labels_of(turn.headers),
        may_move=not known or session.own_words(turn),
    )


def alias_of(model: str, config: GatewayConfig) -> Alias | None:
    """Return what a client means by `model`, None if that is no alias."""
    for prefix in _PREFIXES:
        if model.startswith(prefix) and (alias := config.aliases.get(model.removeprefix(prefix))) is not None:
            return alias
    return None


def _class_of(turn: Turn, path_class: str | None, alias: Alias) -> tuple[WorkClass, ClassSource]:
    """Return the class of a turn, and where it comes from: header, alias, path, or what the turn carries."""
    header = _named(turn.headers.get(CLASS_HEADER.lower()), CLASS_HEADER, WorkClass)
    path = _named(path_class, "/c/", WorkClass)
    carries = turn.carries
    derived = "agent" if carries.tools or carries.hosted_tools or carries.tool_history else "chat"
    named: tuple[tuple[str | None, ClassSource], ...] = (
        (header, "header"),
        (alias.work_class, "alias"),
        (path, "path"),
        (derived, "derived"),
    )
    return next((cast(WorkClass, name), source) for name, source in named if name)


def _named(value: str | None, where: str, kind: Any) -> Any:
    """Return `value` if it is one of the names of `kind`; None if it is None."""
    if value is not None and value not in get_args(kind):
        raise BadRequest(where, f"{value[:40]!r} is not one of {', '.join(get_args(kind))}")
    return value
