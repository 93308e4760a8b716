"""What `otel_endpoint` means to the verbs: where spans go, and the trace that tasks are sent with.

The agents of the farm make the spans of their tasks. Those of containers, here and in AWS, have no way to a collector:
their tasks' spans are made here, from results and ledgers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.settings import PLACE_NAMES, Settings
from farmhand.core.trace_context import TraceContext, below, context_of, from_environment, traces_url
from farmhand.places.base import TaskRows
from farmhand.wire.follow import FINAL_STATES

if TYPE_CHECKING:
    from farmhand.batch.accounting import BatchLedger
    from farmhand.offline.spool import SpooledTask
    from farmhand.wire.client import Client


def endpoint(conf: Settings) -> str:
    """Return the collector's address, "" if there are no spans. Raise NotConfigured if the SDK is missing."""
    if not traces_url(conf.otel_endpoint):
        return ""
    if find_spec("opentelemetry") is None:
        hint = "install farmhand[otel], or set it to none"
        raise NotConfigured("otel_endpoint is set, and OpenTelemetry's SDK is not installed", hint=hint)
    return conf.otel_endpoint


class TaskSpan:
    """The span of one task that this call sends. On the farm the task's own agent makes it.

    `fields` is what the task is sent with: the caller's trace, or elsewhere the context of the span to come.
    """

    def __init__(self, conf: Settings, say: Callable[[str], None]) -> None:
        self._conf, self._say = conf, say
        self._parent = from_environment(os.environ)
        self._own: TraceContext | None = None
        if conf.place != PLACE_NAMES[0] and endpoint(conf):
            self._own = below(self._parent)
        sent = self._own or (self._parent if traces_url(conf.otel_endpoint) else None)
        self.fields = sent.fields() if sent is not None else {}
        self._result: Mapping[str, Any] | None = None
        self._rows = TaskRows()
        self._had_ended = False
        self._others: list[tuple[dict[str, Any], TraceContext | None, TaskRows]] = []

    @property
    def wanted(self) -> bool:
        """Return whether `ended` is of use. A task whose result was there before this call had its span then."""
        return self._own is not None and self._own.sampled and not self._had_ended

    def submitted(self, state: str) -> None:
        """Note the state in which the task was when its place had it."""
        self._had_ended = state in FINAL_STATES

    def ended(self, result: Mapping[str, Any], rows: Callable[[], TaskRows] = TaskRows) -> None:
        """Note the task's result, and its rows of the place's ledger, which are asked for only if they are wanted."""
        if self.wanted:
            self._result = result
            with suppress(FarmhandError):
                self._rows = rows()

    def at_agent(self, result: Mapping[str, Any], client: Client) -> None:
        """Note the result of a task that the agent behind `client` has run."""
        self.ended(result, lambda: TaskRows(charges=tuple(client.charges_of(str(result["id"])))))

    def collected(self, entry: SpooledTask, result: dict[str, Any], client: Client) -> None:
        """Note the result of another task, which has waited in the spool and ended at the agent behind `client`."""
        parent = context_of(entry.trace.get("traceparent"), entry.trace.get("tracestate", ""))
        if self._own is None or (parent is not None and not parent.sampled):
            return
        rows = TaskRows()
        with suppress(FarmhandError):
            rows = TaskRows(charges=tuple(client.charges_of(entry.id)))
        self._others.append((result, parent, rows))

    def send(self) -> None:
        """Make the spans and send them."""
        if self._result is None and not self._others:
            return
        from farmhand import telemetry
        from farmhand.telemetry.told import tell

        tracing = telemetry.begin(self._conf.otel_endpoint, "farmhand", self._conf.place, say=self._say)
        for result, parent, rows in self._others:
            tell(tracing, result, parent, finished=rows.finished, charges=rows.charges)
        if self._result is not None:
            finished, charges = self._rows
            tell(tracing, self._result, self._parent, own=self._own, finished=finished, charges=charges)
        tracing.close()


@contextmanager
def task_span(conf: Settings, say: Callable[[str], None]) -> Iterator[TaskSpan]:
    """Let the block send one task; its spans are sent at the end. Raise NotConfigured."""
    span = TaskSpan(conf, say)
    try:
        yield span
    finally:
        span.send()


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
    tracing = telemetry.begin(url, "farmhand", conf.place, say=say, bulk=conf.place != PLACE_NAMES[0])
    span = tracing.batch(book.batch, from_environment(os.environ))
    if conf.place != PLACE_NAMES[0]:
        from farmhand.telemetry.told import tell

        book.on_result = lambda result, rows: tell(
            tracing, result, span.context, batch=book.batch, finished=rows.finished, charges=rows.charges
        )
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
