"""`GET /metrics` of the gateway, in the Prometheus format. Labels have values of ours only, never a client's words."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from farmhand import __version__
from farmhand.core.money import usd
from farmhand.gateway.ledger import TurnCharge
from farmhand.gateway.turn import BackendState, Decision

#: Upper bounds of the buckets, in seconds: from what the gateway adds to a long prompt's first token.
_ADDED_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1)
_FIRST_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_WHERE = ["work_class", "backend"]
#: How a turn ends: as in the ledger, and with advice.
OUTCOMES = ("done", "advice", "refused", "failed", "cancelled")


class GatewayMetrics(Collector):
    """All time series. `states` gives the backends' states; the others the numbers of open turns and of streams."""

    def __init__(
        self, states: Callable[[], Sequence[BackendState]], open_turns: Callable[[], int], streams: Callable[[], int]
    ) -> None:
        self._states = states
        self._open_turns = open_turns
        self._streams = streams
        #: Pico-dollars by class and backend, and the numbers of turns whose cost is not known.
        self._pico: collections.Counter[tuple[str, str]] = collections.Counter()
        self._unknown: collections.Counter[tuple[str, str]] = collections.Counter()
        self._reloaded = True
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        labels = ["work_class", "backend", "outcome"]
        self._turns = Counter("farmhand_gateway_turns", "Turns that ended.", labels, registry=self._registry)
        why = "Reasons why backends did not take a turn."
        self._reasons = Counter("farmhand_gateway_refusals", why, ["backend", "reason"], registry=self._registry)
        kept = "Reasons for advice: why each backend did not take a turn that none took."
        self._advice = Counter("farmhand_gateway_advice", kept, ["backend", "reason"], registry=self._registry)
        added = "Time from a request's body to its decision."
        self._added = Histogram("farmhand_gateway_added_seconds", added, buckets=_ADDED_S, registry=self._registry)
        first = "Time from a decision to the first byte of a backend's answer."
        self._first = Histogram("farmhand_gateway_first_byte_seconds", first, buckets=_FIRST_S, registry=self._registry)
        self._registry.register(self)

    def decided(self, decision: Decision, added_s: float) -> None:
        """Count a decision, and the seconds that it took."""
        self._added.observe(added_s)
        for refusal in decision.refusals:
            self._reasons.labels(refusal.backend, refusal.reason.code).inc()
            if not decision.backend:
                self._advice.labels(refusal.backend, refusal.reason.code).inc()

    def answering(self, first_s: float) -> None:
        """Count the seconds until a backend's first byte."""
        self._first.observe(first_s)

    def ended(self, decision: Decision, outcome: str) -> None:
        """Count a turn's end, one of OUTCOMES."""
        self._turns.labels(decision.facts.work_class, decision.backend or "advice", outcome).inc()

    def charged(self, charge: TurnCharge) -> None:
        """Add what a turn cost. A cost that is not known is counted as such, never as zero."""
        where = (charge.work_class, charge.backend)
        self._pico[where] += charge.pico or 0
        self._unknown[where] += charge.pico is None

    def reloaded(self, *, ok: bool) -> None:
        """Note whether the last settings that were read are in force."""
        self._reloaded = ok

    def counts(self) -> list[dict[str, str | float]]:
        """Return the numbers of turns by class, backend and outcome."""
        samples = (sample for metric in self._turns.collect() for sample in metric.samples)
        return [{**sample.labels, "turns": sample.value} for sample in samples if sample.name.endswith("_total")]

    def text(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Implement prometheus_client's Collector."""
        build = GaugeMetricFamily("farmhand_gateway_build_info", "The gateway's version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield GaugeMetricFamily("farmhand_gateway_open_turns", "Turns without an end.", value=self._open_turns())
        yield GaugeMetricFamily("farmhand_gateway_open_streams", "Answers being streamed.", value=self._streams())
        told = "Whether the last settings that were read are in force."
        yield GaugeMetricFamily("farmhand_gateway_settings_in_force", told, value=float(self._reloaded))
        cost = CounterMetricFamily("farmhand_gateway_cost_usd", "US$ of turns.", labels=_WHERE)
        unknown = CounterMetricFamily("farmhand_gateway_cost_unknown", "Turns of unknown cost.", labels=_WHERE)
        for where, pico in self._pico.items():
            cost.add_metric(where, float(usd(pico)))
            unknown.add_metric(where, self._unknown[where])
        yield cost
        yield unknown
        up = GaugeMetricFamily("farmhand_gateway_backend_up", "Whether a backend takes turns.", labels=["backend"])
        context = GaugeMetricFamily("farmhand_gateway_context_tokens", "Its context, 0 if unknown.", labels=["backend"])
        used = GaugeMetricFamily("farmhand_gateway_window_used", "The part of a plan's window.", labels=["backend"])
        about = "Today's (UTC) metered US$: spent or reserved, and the limit."
        money = GaugeMetricFamily("farmhand_gateway_metered_usd", about, labels=["kind"])
        for state in self._states():
            for kind, amount in (("spent", state.spent_pico), ("limit", state.day_pico)):
                if amount is not None:
                    money.add_metric([kind], float(usd(amount)))
            if state.used is not None:
                used.add_metric([state.name], state.used)
            up.add_metric([state.name], float(state.closed is None))
            context.add_metric([state.name], state.context)
        yield up
        yield context
        yield money
        yield used
