"""Spans by OpenTelemetry's SDK, sent by its OTLP exporter. Imported by `farmhand.telemetry.begin` alone.

A collector that is down, slow or wrong costs spans and nothing else: they are sent by a thread, at most `_QUEUE` wait,
the end waits `FLUSH_S`, and the log has one line. Of the environment nothing is used: no proxy, no netrc, no OTEL_*.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from farmhand import __version__
from farmhand.core.money import usd
from farmhand.core.task import Task, Usage, resolve_model
from farmhand.core.trace_context import TraceContext, context_of, traces_url
from farmhand.telemetry import names

#: Seconds that the end of the program waits for the last spans, and that one request may take.
FLUSH_S = 2.0
_REQUEST_S = 5.0
#: Spans that wait for the collector at most; beyond that the oldest are dropped. Each takes about 2 KB. The second is
#: for a process in which thousands may end at once.
_QUEUE, _BULK_QUEUE = 2048, 16384
_PORTION = 512
_EVERY_MS = 2000
#: Seconds between two lines about a collector that takes nothing.
_SILENT_S = 3600.0
#: Ids that Farmhand has made up. Any other name comes from a person, or from the name of a file.
_OWN_ID = re.compile(r"t[0-9a-f]{21}|b[0-9a-f]{12}")
#: A code of ours or of the API's.
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LIMITS = SpanLimits(
    max_attributes=32,
    max_events=1,
    max_links=1,
    max_event_attributes=1,
    max_link_attributes=1,
    max_attribute_length=256,
    max_span_attribute_length=256,
)
Attributes = dict[str, Any]


def named(name: str) -> str:
    """Return how a task or a batch is called in a span: `sha256sum`'s first 12 digits of a name that is not our own."""
    return name if _OWN_ID.fullmatch(name) else sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def code(text: str) -> str:
    """Return an error's code, or a stop reason, as it may stand in a span."""
    return text if _CODE.fullmatch(text) else names.OTHER


class CollectorSession(requests.Session):
    """Requests to the collector alone: as if there were no environment, and without a look at an answer's body."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        #: The status of the last answer; 0 if there was none.
        self.status = 0
        #: The program ends: a collector that cannot be reached is not tried again.
        self.ending = False

    def request(  # type: ignore[override]  # the exporter gives all by name
        self, method: str, url: str, **given: Any
    ) -> requests.Response:
        """Implement `Session.request`, for the exporter."""
        self.status = 0
        about = {name: given.get(name) for name in ("headers", "data", "timeout")}
        try:
            answer = super().request(method, url, allow_redirects=False, stream=True, **about)
        except requests.RequestException as error:
            if self.ending:
                raise RuntimeError(type(error).__name__) from None  # the exporter repeats only what it knows
            raise
        self.status = answer.status_code
        answer.close()
        return answer


class CollectorExporter(SpanExporter):
    """The official exporter. What goes wrong is one line for `say`, and no more for an hour."""

    def __init__(self, url: str, certificates: str, say: Callable[[str], None]) -> None:
        self.session = CollectorSession()
        self._inner = OTLPSpanExporter(
            endpoint=url,
            certificate_file=certificates or None,
            timeout=_REQUEST_S,
            compression=Compression.NoCompression,
            session=self.session,
            meter_provider=NoOpMeterProvider(),
        )
        self._at = urlsplit(url).netloc
        self._say = say
        self._silent_until = 0.0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Implement `SpanExporter`."""
        done = self._inner.export(spans)
        status = self.session.status
        if done is SpanExportResult.SUCCESS and 200 <= status < 300:
            return done
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + _SILENT_S
            why = f"answers HTTP {status}" if status else "does not answer"
            self._say(f"the collector at {self._at} {why}: spans are lost, tasks go on (otel_endpoint)")
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Implement `SpanExporter`: end a request's retries too."""
        self._inner.shutdown()  # type: ignore[no-untyped-call]


class _Ids(RandomIdGenerator):
    """New ids, but for a span whose context, `ahead`, was given away before it."""

    ahead: TraceContext | None = None

    def generate_trace_id(self) -> int:
        """Implement `IdGenerator`."""
        return super().generate_trace_id() if self.ahead is None else int(self.ahead.traceparent[3:35], 16)

    def generate_span_id(self) -> int:
        """Implement `IdGenerator`."""
        return super().generate_span_id() if self.ahead is None else int(self.ahead.traceparent[36:52], 16)


class Tracing:
    """The spans of a process. `service` names it, `place` is where its work runs.

    The sending thread begins with the first span that ends: before that a process may fork. `ca_file` is a PEM bundle,
    "" for the system's. `say` gets a line for the log. With `bulk` thousands of spans may end at once.
    """

    def __init__(
        self,
        endpoint: str,
        service: str,
        place: str,
        *,
        say: Callable[[str], None],
        ca_file: str = "",
        bulk: bool = False,
    ) -> None:
        for library in ("opentelemetry", "urllib3"):
            # A line for each failed request, with what a peer said in it.
            logging.getLogger(library).setLevel(logging.CRITICAL + 1)
        about = {"service.name": service, "service.version": __version__, "host.name": socket.gethostname()}
        system = ssl.get_default_verify_paths()
        self._exporter = CollectorExporter(traces_url(endpoint), ca_file or system.cafile or system.capath or "", say)
        self._ids = _Ids()
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            resource=Resource(about),
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=_LIMITS,
        )
        self._tracer = self._provider.get_tracer("farmhand", __version__)
        self._sending = False
        self._queue = _BULK_QUEUE if bulk else _QUEUE
        self.place = place

    def start(
        self,
        name: str,
        parent: TraceContext | None,
        attributes: Attributes,
        kind: trace.SpanKind,
        at: float = 0.0,
        own: TraceContext | None = None,
    ) -> trace.Span:
        """Return a new span, begun at `at` (Unix seconds) or now. `own` is its context if that is known already."""
        self._ids.ahead = own
        try:
            return self._tracer.start_span(name, _as_parent(parent), kind, attributes, start_time=_ns(at))
        finally:
            self._ids.ahead = None

    def end(self, span: trace.Span, attributes: Mapping[str, Any], error: str, at: float = 0.0) -> None:
        """End a span at `at` or now, and hand it to the sender. `error` is a code, "" for none."""
        span.set_attributes({name: value for name, value in attributes.items() if value is not None})
        if error:
            span.set_attribute(names.ERROR, code(error))
            span.set_status(trace.StatusCode.ERROR)
        if not self._sending:
            self._sending = True
            self._provider.add_span_processor(
                BatchSpanProcessor(
                    self._exporter,
                    self._queue,
                    _EVERY_MS,
                    _PORTION,
                    _REQUEST_S * 1000,
                    meter_provider=NoOpMeterProvider(),
                )
            )
        span.end(_ns(at))

    def task(self, task: Task, attempt: int, at: float = 0.0) -> OwnSpan:
        """Return the span of a task, from the start of its attempt `attempt`."""
        about = {names.PLACE: self.place, names.TASK_ID: named(task.id), names.ENGINE: task.resolved_engine}
        about |= {names.IN_BATCH: named(task.batch)} if task.batch else {}
        parent = context_of(task.traceparent, task.tracestate)
        return OwnSpan(
            self, names.TASK, parent, about | {names.ATTEMPT: attempt, names.MODEL: resolve_model(task.model)}, at
        )

    def batch(self, batch: str, parent: TraceContext | None) -> OwnSpan:
        """Return the span of one run of `farmhand batch`."""
        return OwnSpan(self, names.BATCH, parent, {names.PLACE: self.place, names.IN_BATCH: named(batch)})

    def within(self, parent: TraceContext | None) -> SpanParent:
        """Return what makes spans of requests below a caller's."""
        return SpanParent(self, parent, {names.PLACE: self.place})

    def close(self, patience_s: float = FLUSH_S) -> None:
        """Send what waits, for at most `patience_s`; the rest is lost."""
        self._exporter.session.ending = True
        last = Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(patience_s)
        if last.is_alive():
            self._exporter.shutdown()
            last.join(patience_s / 4)  # for the line in the log


class SpanParent:
    """Makes the spans of requests to the model, below `context` and with the attributes `shared`."""

    def __init__(self, tracing: Tracing, context: TraceContext | None, shared: Attributes) -> None:
        self.tracing = tracing
        self.context = context
        self.shared = shared

    def request(self, model: str, max_tokens: int) -> ModelRequest:
        """Return the span of a request that begins now."""
        return ModelRequest(self, model, max_tokens)

    def spent(self, usage: Usage, cost_pico: int | None) -> None:
        """Take in what a request used; None is an unknown cost."""


class OwnSpan(SpanParent):
    """The span of a task or of a batch. It sums up what its requests used."""

    def __init__(
        self, tracing: Tracing, name: str, parent: TraceContext | None, about: Attributes, at: float = 0.0
    ) -> None:
        self._span = tracing.start(name, parent, about, trace.SpanKind.INTERNAL, at)
        super().__init__(tracing, own_context(self._span), about)
        self._usage = Usage()
        self._pico: int | None = 0

    def again(self) -> None:
        """Count a further attempt."""
        self.shared[names.ATTEMPT] += 1

    def spent(self, usage: Usage, cost_pico: int | None) -> None:
        """Implement `SpanParent`."""
        self._usage.add(usage)
        self._pico = None if cost_pico is None or self._pico is None else self._pico + cost_pico

    def end(self, error: str = "", *, finish: str = "", **attributes: Any) -> None:
        """End it. `error` is a code; `attributes` are further ones, by the names of the constants in lower case."""
        more = {getattr(names, name.upper()): value for name, value in attributes.items()}
        own = {name: self.shared[name] for name in (names.ATTEMPT,) if name in self.shared}
        self.tracing.end(self._span, own | used(self._usage, self._pico, finish) | more, error)


class ModelRequest:
    """The span of one request to the Messages API, with the meter's retries in it."""

    def __init__(self, parent: SpanParent, model: str, max_tokens: int) -> None:
        about = parent.shared | {names.OPERATION: names.CHAT, names.PROVIDER: "anthropic"}
        about |= {names.MODEL: model, names.MAX_TOKENS: max_tokens}
        self._parent = parent
        self._span = parent.tracing.start(f"{names.CHAT} {model}", parent.context, about, trace.SpanKind.CLIENT)
        self._used: Attributes = {}

    def charged(self, usage: Usage, cost_pico: int | None, stop_reason: str) -> None:
        """Note the answer."""
        self._used = used(usage, cost_pico, stop_reason)
        self._parent.spent(usage, cost_pico)

    def end(self, error: str = "", retries: int = 0) -> None:
        """End it; `error` is a code."""
        self._parent.tracing.end(self._span, self._used | {names.RETRIES: retries}, error)


def _as_parent(parent: TraceContext | None) -> Context:
    """Return the SDK's form of a parent; for None that of a new trace, whatever the current context is."""
    if parent is None:
        return Context()
    _, trace_id, span_id, flags = parent.traceparent.split("-")
    state = trace.TraceState.from_header([parent.tracestate]) if parent.tracestate else None
    remote = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)), state)
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())


def own_context(span: trace.Span) -> TraceContext | None:
    """Return what is given to a span's children."""
    own = span.get_span_context()
    parent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
    return context_of(parent, own.trace_state.to_header())


def _ns(at: float) -> int | None:
    return int(at * 1e9) if at else None


def used(usage: Usage, cost_pico: int | None, finish: str) -> Attributes:
    """Return the attributes of what was used; None is not known, and left out."""
    return {
        names.INPUT: usage.prompt_tokens,
        names.OUTPUT: usage.output_tokens,
        names.CACHE_READ: usage.cache_read_input_tokens,
        names.CACHE_CREATION: usage.cache_creation_input_tokens,
        names.COST: None if cost_pico is None else float(usd(cost_pico)),
        names.FINISH: [code(finish)] if finish else None,
    }
