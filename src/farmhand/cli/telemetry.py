"""What `otel_endpoint` means to the verbs: where spans go, and the trace that tasks are sent with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from farmhand.core.errors import NotConfigured, UsageError
from farmhand.core.settings import PLACE_NAMES, Settings
from farmhand.core.trace_context import TraceContext, from_environment, traces_url

if TYPE_CHECKING:
    from farmhand.batch.accounting import BatchLedger


def endpoint(conf: Settings) -> str:
    """Return the collector's address, "" if there are no spans. Raise NotConfigured if the SDK is missing."""
    if not traces_url(conf.otel_endpoint):
        return ""
    if find_spec("opentelemetry") is None:
        hint = "install farmhand[otel], or set it to none"
        raise NotConfigured("otel_endpoint is set, and OpenTelemetry's SDK is not installed", hint=hint)
    return conf.otel_endpoint


def check_place(conf: Settings) -> None:
    """Raise UsageError if spans are wanted of tasks at a place whose agents make none."""
    if conf.place != PLACE_NAMES[0] and traces_url(conf.otel_endpoint):
        raise UsageError(
            f"tasks at the place {conf.place} make no spans, and otel_endpoint is set",
            hint="use --place farm, or FARMHAND_OTEL_ENDPOINT=none to run them without",
        )


def fields(conf: Settings) -> dict[str, str]:
    """Return what a task is sent with beside its own fields: the trace that this call belongs to."""
    found = from_environment(os.environ) if traces_url(conf.otel_endpoint) else None
    return found.fields() if found is not None else {}


@contextmanager
def batch_span(conf: Settings, book: BatchLedger, say: Callable[[str], None]) -> Iterator[TraceContext | None]:
    """Let the block be the span of a run of the batch, and yield the trace of its tasks. Raise NotConfigured."""
    if not (url := endpoint(conf)):
        yield None
        return
    from farmhand import telemetry
    from farmhand.core.money import PICO_PER_USD

    totals = book.totals
    spent, failed = totals.cost_pico, totals.failed
    tracing = telemetry.begin(url, "farmhand", conf.place, say=say)
    span = tracing.batch(book.batch, from_environment(os.environ))
    error = "stopped"
    try:
        yield span.context
        error = "" if not totals.left else error
    except Exception as problem:
        error = str(getattr(problem, "code", "error"))
        raise
    finally:
        cost = (totals.cost_pico - spent) / PICO_PER_USD
        # Tokens are the tasks' to tell: 0 would be a lie.
        unknown = {"input": None, "output": None, "cache_read": None, "cache_creation": None}
        known = {"cost": cost, "tasks": totals.finished_now, "failed": totals.failed - failed}
        span.end(error, finish="", **unknown, **known)
        tracing.close()
