"""Spans of a task that ran where none are made: told by the workstation, once it has the task's result.

The place's ledger knows more than the result: when the task began and ended, and each of its requests. Without these
lines the task ends now, and has no spans of requests.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import msgspec
from opentelemetry.trace import SpanKind

from farmhand.core.money import pico_of
from farmhand.core.task import Usage
from farmhand.core.trace_context import TraceContext
from farmhand.core.typed import ready
from farmhand.telemetry import names
from farmhand.telemetry.spans import Attributes, Tracing, named, own_context, used

_ENGINES = ("api", "cli", "economy")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}", re.ASCII)
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
#: Unix seconds, until 2099: as nanoseconds they go into 64 bits.
_Moment = Annotated[float, msgspec.Meta(ge=0, le=4_102_444_800)]
_Usd = Annotated[float, msgspec.Meta(ge=0, le=10_000)]


class _EndedTask(msgspec.Struct, kw_only=True):
    """A final result, as on the wire, as far as it is told."""

    id: str
    state: str
    model: str | None = None
    engine: str | None = None
    usage: dict[str, _Count | None] | None = None
    cost_usd: _Usd | None = None
    attempts: _Count | None = None
    run_s: _Moment | None = None
    stop_reason: str | None = None
    error: dict[str, Any] | None = None
    batch: str | None = None

    @property
    def has_begun(self) -> bool:
        """Return whether it ran at all. Where a place has no attempts in it, a cancelled one has not."""
        return self.state != "cancelled" if self.attempts is None else self.attempts > 0


class _Charge(msgspec.Struct, kw_only=True):
    """A line of `/v1/charges`, as far as it is told."""

    model: str
    created_at: _Moment
    attempt: _Count = 1
    cost_usd: _Usd | None = None
    economy: bool = False
    input_tokens: _Count = 0
    output_tokens: _Count = 0
    cache_creation_input_tokens: _Count = 0
    cache_read_input_tokens: _Count = 0


class _Finished(msgspec.Struct, kw_only=True):
    """A line of `/v1/finished`, as far as it is told."""

    finished_at: _Moment
    started_at: _Moment | None = None


_Line = TypeVar("_Line", _Charge, _Finished)


def tell(
    tracing: Tracing,
    result: Mapping[str, Any],
    parent: TraceContext | None,
    *,
    batch: str = "",
    own: TraceContext | None = None,
    finished: bytes = b"",
    charges: Iterable[bytes] = (),
) -> None:
    """Make the span of a task and those of its requests. `own` is what the task was sent with as its trace.

    `result` is as on the wire; `finished` and `charges` are the task's lines of the ledger. Nothing is told of a task
    that never began, or of a result of another form. Of a request it is known when it was paid for, and not how long it
    took: its span has no length.
    """
    with suppress(msgspec.ValidationError):
        ended = msgspec.convert(result, ready(_EndedTask))
        if ended.has_begun:
            _tell_task(tracing, ended, parent, batch or ended.batch or "", own, finished, charges)


def _tell_task(
    tracing: Tracing,
    task: _EndedTask,
    parent: TraceContext | None,
    batch: str,
    own: TraceContext | None,
    finished: bytes,
    charges: Iterable[bytes],
) -> None:
    about: Attributes = {names.PLACE: tracing.place, names.TASK_ID: named(task.id)}
    about |= {names.IN_BATCH: named(batch)} if batch else {}
    about |= {names.ENGINE: task.engine} if task.engine in _ENGINES else {}
    more = about | {names.ATTEMPT: task.attempts or 1}
    more |= {names.MODEL: _model(task.model)} if task.model else {}
    began_at, ended_at = _times(task, finished)
    span = tracing.start(names.TASK, parent, more, SpanKind.INTERNAL, began_at, own)
    for charge in _decoded(charges, _Charge):
        # A task of a Message Batch has no requests of its own, here as on a farm host.
        if not charge.economy:
            _tell_request(tracing, charge, own_context(span), about)
    error = "" if task.state == "succeeded" else str((task.error or {}).get("code") or task.state)
    has_used = used(_usage(task.usage or {}), _pico(task.cost_usd), task.stop_reason or "")
    if task.usage is None:  # 0 would be a lie
        has_used |= dict.fromkeys((names.INPUT, names.OUTPUT, names.CACHE_READ, names.CACHE_CREATION))
    tracing.end(span, has_used, error, ended_at)


def _tell_request(tracing: Tracing, charge: _Charge, task: TraceContext | None, about: Attributes) -> None:
    model = _model(charge.model)
    more = about | {names.OPERATION: names.CHAT, names.PROVIDER: "anthropic", names.MODEL: model}
    more |= {names.ATTEMPT: charge.attempt}
    span = tracing.start(f"{names.CHAT} {model}", task, more, SpanKind.CLIENT, charge.created_at)
    has_used = used(_usage(msgspec.structs.asdict(charge)), _pico(charge.cost_usd), "")
    tracing.end(span, has_used, "", charge.created_at)


def _times(task: _EndedTask, finished: bytes) -> tuple[float, float]:
    """Return when the task began and ended, in Unix seconds."""
    now = time.time()
    began_at, ended_at = now - (task.run_s or 0), now
    for row in _decoded([finished] if finished else [], _Finished):
        began_at, ended_at = row.started_at or row.finished_at, row.finished_at
    return min(began_at, ended_at), ended_at


def _decoded(lines: Iterable[bytes], kind: type[_Line]) -> Iterator[_Line]:
    """Yield the lines; one of another form is left out."""
    for line in lines:
        with suppress(ValueError, RecursionError):
            yield msgspec.json.decode(line, type=ready(kind))


def _usage(given: Mapping[str, Any]) -> Usage:
    return Usage(**{name: given.get(name) or 0 for name in Usage.__struct_fields__})


def _pico(cost_usd: float | None) -> int | None:
    # The decimal text of a float is the intended amount.
    return None if cost_usd is None else pico_of(cost_usd)


def _model(model: str) -> str:
    return model if _MODEL.fullmatch(model) else names.OTHER
