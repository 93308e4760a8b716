"""`GET /metrics`: the agent's metrics in the Prometheus format.

Gauges are read on request, from sums that are kept anyway. Counters and histograms start at zero with the agent, as
Prometheus expects of a process, and count what the ledger has committed since. Money is summed in pico-dollars.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from farmhand import __version__
from farmhand.agent.http.status import Status
from farmhand.agent.scheduler import Scheduler
from farmhand.agent.store.commands import AttemptEnd
from farmhand.agent.store.ledger import TaskEnd, Watcher
from farmhand.core.engines import ENGINES
from farmhand.meter import Limits
from farmhand.meter.errors import KINDS

#: Upper bounds of the histogram buckets, in seconds: a text task takes a few, an economy task up to a day.
BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400)
#: Maximum number of values per label. Later ones become `other`, so that no client can fill the memory.
_MOST = 100
_OTHER = "other"
_WAITS = (
    *("slots", "batch_concurrency", "rate_limit", "api_error", "no_key", "key_refused"),
    *("draining", "economy", "after_crash"),
)


def _family(kind: Any, name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Any:
    made = kind(name, text, labels=labels)
    for names, value in values.items():
        made.add_metric((names,) if isinstance(names, str) else names, value)
    return made


_counter = partial(_family, CounterMetricFamily)
_gauge = partial(_family, GaugeMetricFamily)


class Metrics(Watcher, Collector):
    """All time series. `errors` counts the API's errors by kind; the meter updates it."""

    def __init__(self, scheduler: Scheduler, status: Status, limits: Limits, errors: Counter[str]) -> None:
        self._scheduler = scheduler
        self._ledger = scheduler.context.ledger
        self._status = status
        self._limits = limits
        self._errors = errors
        self._started = time.time()
        self._finished: Counter[tuple[str, str]] = Counter({("succeeded", ""): 0})
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._pico: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._unpriced: Counter[str] = Counter()
        self._retries = 0
        self._uncertain = scheduler.interrupted
        self._registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._queue_s = self._histogram("farmhand_task_queue_seconds", "Time from a task's arrival to its start.")
        self._run_s = self._histogram("farmhand_task_run_seconds", "Time from a task's start to its end.")
        self._registry.register(self)
        self._ledger.watcher = self

    def _histogram(self, name: str, text: str) -> Histogram:
        made = Histogram(name, text, ["engine"], registry=self._registry, buckets=BUCKETS_S)
        for engine in ENGINES:
            made.labels(engine)
        return made

    def text(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self._registry)

    # --- events from the ledger ---------------------------------------------------------------------------------------

    def attempt(self, end: AttemptEnd) -> None:
        """Count the usage and cost of an attempt that has ended."""
        self._retries += end.retries
        self._uncertain += end.uncertain
        for charge in end.charges:
            model = charge.model if charge.model in self._requests or len(self._requests) < _MOST else _OTHER
            usage = charge.usage
            self._requests[model] += usage.requests
            self._pico[model] += charge.cost_pico or 0
            self._unpriced[model] += charge.cost_pico is None
            written_1h = usage.cache_creation_1h_input_tokens
            kinds = {
                "input": usage.input_tokens,
                "output": usage.output_tokens,
                "cache_write_5m": usage.cache_creation_input_tokens - written_1h,
                "cache_write_1h": written_1h,
                "cache_read": usage.cache_read_input_tokens,
            }
            for kind, tokens in kinds.items():
                self._tokens[model, kind] += tokens

    def task(self, end: TaskEnd) -> None:
        """Count a task that is final."""
        name = (end.state, end.error)
        self._finished[name if name in self._finished or len(self._finished) < _MOST else (end.state, _OTHER)] += 1
        if end.started_at is not None:
            # The clock may have been set back in the meantime.
            self._queue_s.labels(end.engine).observe(max(0.0, end.started_at - end.created_at))
            self._run_s.labels(end.engine).observe(max(0.0, end.finished_at - end.started_at))

    def cancelled(self, tasks: int) -> None:
        """Count the cancelled tasks of a batch."""
        self._finished["cancelled", "cancelled"] += tasks

    # --- collection by Prometheus -------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Yield all families except the histograms."""
        yield from self._counters()
        yield from self._tasks()
        yield from self._keys_and_budget()
        yield from self._headroom()
        yield _gauge("farmhand_build_info", "The agent's version.", ("version",), {__version__: 1.0})
        yield _gauge("farmhand_start_time_seconds", "When the agent started.", (), {(): self._started})
        yield _gauge("farmhand_ledger_size_bytes", "What the ledger holds.", (), {(): self._ledger.bytes_used()})

    def _counters(self) -> Iterator[Metric]:
        errors = Counter(dict.fromkeys((*KINDS, _OTHER), 0))
        for kind, count in self._errors.items():
            errors[kind if kind in KINDS else _OTHER] += count
        dollars = {model: pico / 10**12 for model, pico in self._pico.items()}
        model = ("model",)
        yield _counter(
            "farmhand_tasks_finished", "Tasks that ended, by state and error code.", ("state", "code"), self._finished
        )
        text = "Tokens that the API counted, by model and kind."
        yield _counter("farmhand_tokens", text, ("model", "kind"), self._tokens)
        yield _counter("farmhand_cost_usd", "US$ that requests with a known price cost, by model.", model, dollars)
        yield _counter("farmhand_api_requests", "Requests that the API answered.", model, self._requests)
        yield _counter("farmhand_api_requests_unpriced", "Those without a known price.", model, self._unpriced)
        text = "Requests that the API may have charged for without our knowing how much."
        yield _counter("farmhand_api_requests_uncertain", text, (), {(): self._uncertain})
        yield _counter("farmhand_api_retries", "Requests that were sent again.", (), {(): self._retries})
        yield _counter("farmhand_api_errors", "Requests that the API refused or broke off.", ("kind",), errors)

    def _tasks(self) -> Iterator[Metric]:
        counts = self._status.counts()
        states = {state: counts[state] for state in ("queued", "awaiting_key", "running")} | counts["finished"]
        yield _gauge("farmhand_tasks", "Tasks in the ledger by state.", ("state",), states)
        for name, which, text in (
            ("farmhand_slots", "total", "Task slots by engine."),
            ("farmhand_slots_free", "free", "Free task slots by engine."),
        ):
            slots = {engine: numbers[which] for engine, numbers in counts["slots"].items()}
            yield _gauge(name, text, ("engine",), slots)
        waiting = Counter(dict.fromkeys(_WAITS, 0))
        for wait in self._status.waiting():
            waiting[wait.reason] += wait.tasks
        yield _gauge("farmhand_tasks_waiting", "Tasks that wait, by what they wait for.", ("reason",), waiting)
        draining = self._scheduler.draining
        yield _gauge("farmhand_draining", "Whether new tasks are refused.", (), {(): float(draining)})

    def _keys_and_budget(self) -> Iterator[Metric]:
        first, now = self._ledger.key_dates(), time.time()
        keys = self._scheduler.keys
        states = dict.fromkeys(keys.held, "held") | dict.fromkeys(keys.refused, "refused")
        ages = {(key, state): max(0.0, now - first.get(key, now)) for key, state in states.items()}
        yield _gauge(
            "farmhand_key_age_seconds", "Time since the key was first brought to this host.", ("key", "state"), ages
        )
        day = self._scheduler.budgets.day()
        limit, spent, reserved = (day.limit_pico or 0, day.spent_pico, day.reserved_pico) if day else (0, 0, 0)
        for name, text, pico in (
            ("limit", "The budget of this day (UTC).", limit),
            ("spent", "What of it is spent.", spent),
            ("left", "What is neither spent nor reserved.", limit - spent - reserved),
        ):
            yield _gauge(f"farmhand_budget_{name}_usd", text, ("budget",), {"day": pico / 10**12} if day else {})

    def _headroom(self) -> Iterator[Metric]:
        gates = self._limits.headroom()
        kinds = {(g.fingerprint, g.model, kind): both for g in gates for kind, both in g.kinds.items()}
        labels = ("key", "model", "kind")
        limit = {name: float(both[0]) for name, both in kinds.items()}
        left = {name: float(both[1]) for name, both in kinds.items()}
        yield _gauge("farmhand_ratelimit_limit", "The API's limit a minute, as its headers tell.", labels, limit)
        yield _gauge("farmhand_ratelimit_remaining", "What of it is left now.", labels, left)
        window = {(g.fingerprint, g.model): float(g.window) for g in gates}
        running = {(g.fingerprint, g.model): float(g.running) for g in gates}
        yield _gauge("farmhand_api_window", "Requests that may be under way at once.", labels[:2], window)
        yield _gauge("farmhand_api_requests_running", "Requests that are under way.", labels[:2], running)
