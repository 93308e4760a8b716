"""`GET /metrics`: the agent's metrics in the Prometheus format.

Gauges are read on request, from sums that are kept anyway. Counters and histograms start at zero with the agent, as
Prometheus expects of a process, and count what the ledger has committed since.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from farmhand import __version__
from farmhand.agent.http.status import Status
from farmhand.agent.scheduler import Scheduler
from farmhand.agent.store.commands import AttemptEnd, TaskEnd
from farmhand.agent.store.ledger import Watcher
from farmhand.core.engines import ENGINES
from farmhand.meter.errors import KINDS
from farmhand.meter.limits import Limits

#: Upper bounds of the histogram buckets, in seconds: a text task takes a few, an economy task up to a day.
BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400)
#: Maximum number of values per label. Later ones become `other`, so that no client can fill the memory.
_MOST = 100
_OTHER = "other"
_WAITS = (
    *("slots", "batch_concurrency", "rate_limit", "api_error", "no_key", "key_refused", "pot_spent"),
    *("draining", "economy", "economy_sent", "after_crash"),
)


def _family(kind: Any, name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, Any]) -> Any:
    made = kind(name, text, labels=labels)
    for names, value in values.items():
        made.add_metric((names,) if isinstance(names, str) else names, float(value))
    return made


_gauge = partial(_family, GaugeMetricFamily)


class Metrics(Watcher, Collector):
    """All time series. `errors` counts the API's errors by kind; the meter updates it."""

    def __init__(self, scheduler: Scheduler, status: Status, limits: Limits, errors: Counts[str]) -> None:
        self._ledger = scheduler.context.ledger
        self._status = status
        self._limits = limits
        self._errors = errors
        self._started = time.time()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        model = ["model"]
        ended = "Tasks that ended, by state and error code."
        self._finished = counter("farmhand_tasks_finished", ended, ["state", "code"])
        self._finished.labels("succeeded", "")
        self._tokens = counter("farmhand_tokens", "Tokens that the API counted, by model and kind.", ["model", "kind"])
        #: In pico-dollars: sums of floats would drift.
        self._cost: Counts[str] = Counts()
        self._requests = counter("farmhand_api_requests", "Requests that the API answered.", model)
        self._unpriced = counter("farmhand_api_requests_unpriced", "Those without a known price.", model)
        uncertain = "Requests that the API may have charged for without our knowing how much."
        self._uncertain = counter("farmhand_api_requests_uncertain", uncertain)
        self._uncertain.inc(scheduler.interrupted)
        self._retries = counter("farmhand_api_retries", "Requests that were sent again.")
        self._queue_s = self._histogram("farmhand_task_queue_seconds", "Time from a task's arrival to its start.")
        self._run_s = self._histogram("farmhand_task_run_seconds", "Time from a task's start to its end.")
        #: The values of the labels `model` and `code` so far.
        self._seen: dict[str, set[str]] = {"model": set(), "code": set()}
        self._registry.register(self)
        self._ledger.watcher = self

    def _histogram(self, name: str, text: str) -> Histogram:
        made = Histogram(name, text, ["engine"], registry=self._registry, buckets=BUCKETS_S)
        for engine in ENGINES:
            made.labels(engine)
        return made

    def _bounded(self, label: str, value: str) -> str:
        seen = self._seen[label]
        if len(seen) < _MOST:
            seen.add(value)
        return value if value in seen else _OTHER

    def text(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self._registry)

    # --- events from the ledger ---------------------------------------------------------------------------------------

    def attempt(self, end: AttemptEnd) -> None:
        """Count the usage and cost of an attempt that has ended."""
        self._retries.inc(end.retries)
        self._uncertain.inc(end.uncertain)
        for charge in end.charges:
            model, usage = self._bounded("model", charge.model), charge.usage
            self._requests.labels(model).inc(usage.requests)
            self._cost[model] += charge.cost_pico or 0
            self._unpriced.labels(model).inc(charge.cost_pico is None)
            written_1h = usage.cache_creation_1h_input_tokens
            kinds = {
                "input": usage.input_tokens,
                "output": usage.output_tokens,
                "cache_write_5m": max(0, usage.cache_creation_input_tokens - written_1h),
                "cache_write_1h": written_1h,
                "cache_read": usage.cache_read_input_tokens,
            }
            for kind, tokens in kinds.items():
                self._tokens.labels(model, kind).inc(tokens)

    def task(self, end: TaskEnd) -> None:
        """Count a task that is final."""
        self._finished.labels(end.state, self._bounded("code", end.error)).inc()
        if end.started_at is not None:
            # The clock may have been set back in the meantime.
            self._queue_s.labels(end.engine).observe(max(0.0, end.started_at - end.created_at))
            self._run_s.labels(end.engine).observe(max(0.0, end.finished_at - end.started_at))

    def cancelled(self, tasks: int) -> None:
        """Count the cancelled tasks of a batch."""
        self._finished.labels("cancelled", "cancelled").inc(tasks)

    # --- collection by Prometheus -------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Yield the families whose values are kept elsewhere."""
        errors = Counts(dict.fromkeys((*KINDS, _OTHER), 0))
        for kind, count in self._errors.items():
            errors[kind if kind in KINDS else _OTHER] += count
        text = "Requests that the API refused or broke off."
        yield _family(CounterMetricFamily, "farmhand_api_errors", text, ("kind",), errors)
        cost = {model: pico / 10**12 for model, pico in self._cost.items()}
        text = "US$ that requests with a known price cost, by model."
        yield _family(CounterMetricFamily, "farmhand_cost_usd", text, ("model",), cost)
        yield _gauge("farmhand_build_info", "The agent's version.", ("version",), {__version__: 1})
        yield _gauge("farmhand_start_time_seconds", "When the agent started.", (), {(): self._started})
        status = self._status.as_dict()
        yield from self._tasks(status)
        yield from self._keys_and_budget(status)
        yield from self._headroom()

    @staticmethod
    def _tasks(status: dict[str, Any]) -> Iterator[Metric]:
        states = {state: status[state] for state in ("queued", "awaiting_key", "running")} | status["finished"]
        yield _gauge("farmhand_tasks", "Tasks in the ledger by state.", ("state",), states)
        total = {engine: slots["total"] for engine, slots in status["slots"].items()}
        free = {engine: slots["free"] for engine, slots in status["slots"].items()}
        yield _gauge("farmhand_slots", "Task slots by engine.", ("engine",), total)
        yield _gauge("farmhand_slots_free", "Free task slots by engine.", ("engine",), free)
        waiting = Counts(dict.fromkeys(_WAITS, 0))
        for wait in status["waiting"]:
            waiting[wait.reason] += wait.tasks
        yield _gauge("farmhand_tasks_waiting", "Tasks that wait, by what they wait for.", ("reason",), waiting)
        yield _gauge("farmhand_draining", "Whether new tasks are refused.", (), {(): status["draining"]})
        yield _gauge("farmhand_ledger_size_bytes", "What the ledger holds.", (), {(): status["ledger"]["bytes"]})

    def _keys_and_budget(self, status: dict[str, Any]) -> Iterator[Metric]:
        first, now = self._ledger.key_dates(), time.time()
        keys = [(key["fingerprint"], key["state"]) for key in status["keys"] if key["state"] != "superseded"]
        ages = {(key, state): max(0.0, now - first.get(key, now)) for key, state in keys}
        text = "Time since the key was first brought to this host."
        yield _gauge("farmhand_key_age_seconds", text, ("key", "state"), ages)
        limit, spent, left = {}, {}, {}
        if (day := status["budget_day"]) is not None:
            limit, spent = {"day": day["limit_usd"]}, {"day": day["spent_usd"]}
            left = {"day": day["limit_usd"] - day["spent_usd"] - day["reserved_usd"]}
        yield _gauge("farmhand_budget_limit_usd", "The budget of this day (UTC).", ("budget",), limit)
        yield _gauge("farmhand_budget_spent_usd", "What of it is spent.", ("budget",), spent)
        yield _gauge("farmhand_budget_left_usd", "What is neither spent nor reserved.", ("budget",), left)

    def _headroom(self) -> Iterator[Metric]:
        gates = {(gate.fingerprint, gate.model): gate for gate in self._limits.headroom()}
        kinds = {(*name, kind): both for name, gate in gates.items() for kind, both in gate.kinds.items()}
        labels = ("key", "model", "kind")
        limit = {name: both[0] for name, both in kinds.items()}
        left = {name: both[1] for name, both in kinds.items()}
        yield _gauge("farmhand_ratelimit_limit", "The API's limit a minute, as its headers tell.", labels, limit)
        yield _gauge("farmhand_ratelimit_remaining", "What of it is left now.", labels, left)
        window = {name: gate.window for name, gate in gates.items()}
        running = {name: gate.running for name, gate in gates.items()}
        yield _gauge("farmhand_api_window", "Requests that may be under way at once.", labels[:2], window)
        yield _gauge("farmhand_api_requests_running", "Requests that are under way.", labels[:2], running)
