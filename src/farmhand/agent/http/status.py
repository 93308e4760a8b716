"""The data of `GET /v1/status`, and the reasons why tasks wait."""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from farmhand import __version__
from farmhand.agent.scheduler import Scheduler
from farmhand.agent.store.queries import BatchView, KnownTask, NoSuchBatch
from farmhand.core.errors import POT_SPENT
from farmhand.core.money import usd
from farmhand.core.pushed import read_note
from farmhand.core.readable import counted
from farmhand.core.task import FINAL_STATES
from farmhand.meter.errors import ApiError
from farmhand.meter.limits import Limits, WaitReason

#: The most tasks ahead in the queue that are counted.
MAX_AHEAD = 1000
#: The most unfinished batches that the status has.
MOST_BATCHES = 20
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def cli_version(claude_path: str) -> str | None:
    """Return the version of the claude CLI, which runs tasks with tools, or None if it is not installed.

    The role claude_cli installs each version into a directory of its name; other installations are `unknown`.
    """
    try:
        name = Path(claude_path).resolve(strict=True).parent.name
    except OSError:
        return None
    return name if _VERSION.fullmatch(name) else "unknown"


class Status:
    """A read-only view of the scheduler and the ledger. Its cost does not depend on the number of tasks."""

    def __init__(self, scheduler: Scheduler, limits: Limits) -> None:
        self._ledger = scheduler.context.ledger
        self._scheduler = scheduler
        self._limits = limits
        self._started = time.monotonic()

    def as_dict(self) -> dict[str, Any]:
        """Return the whole status."""
        scheduler, config, counts = self._scheduler, self._scheduler.context.config, self._ledger.counts()
        default = scheduler.pots[""].keys.default
        return {
            "queued": counts["queued"],
            "awaiting_key": counts["awaiting_key"],
            "running": counts["running"],
            "finished": {state: counts[state] for state in sorted(FINAL_STATES)},
            "slots": {name: {"total": n, "free": n - scheduler.busy[name]} for name, n in scheduler.slots.items()},
            "version": __version__,
            "state": "draining" if scheduler.draining else "running",
            "uptime_s": round(time.monotonic() - self._started, 1),
            "upstream": config.upstream_url,
            "network_full": config.network_full,
            "time": round(time.time(), 3),
            "cli": cli_version(config.claude_path),
            "key": default.fingerprint if default else None,
            "draining": scheduler.draining,
            "drain": scheduler.context.mode,
            "throughput": {"per_s": scheduler.registry.per_s()},
            "waiting": self.waiting(),
            "keys": self._keys(),
            "budget_day": scheduler.budgets.day_status(),
            "spent_today_usd": usd(scheduler.budgets.spent_today()),
            "batches": self._ledger.open_batches(MOST_BATCHES),
            "ledger": {
                "id": self._ledger.ledger_id(),
                "tasks": sum(counts.values()),
                "bytes": self._ledger.bytes_used(),
            },
            "cloudwatch": read_note(config.metrics_note) if config.metrics_note else None,
        } | ({"pots": [pot.as_dict() for pot in named]} if (named := scheduler.pots.named) else {})

    def _keys(self) -> list[dict[str, Any]]:
        """Return all keys that are held, refused, or superseded but still present or in use, with their task counts.

        A task counts as running from before its request is sent until no part of it can use the key any more.
        """
        pots = self._scheduler.pots
        running = Counter(live.key.fingerprint for live in self._scheduler.registry.running() if live.key is not None)
        states, refused = dict.fromkeys(running, "superseded"), dict[str, ApiError]()
        for keys in (pot.keys for pot in pots):
            states |= {keys.reserve: "superseded"} if keys.reserve else {}
            states |= dict.fromkeys(keys.refused, "refused") | dict.fromkeys(keys.held, "held")
            refused |= keys.refused
        queued: Counter[str] = Counter()
        if len(states) == 1 and not pots.named:
            # All tasks run on this key, whichever they came with, so there is nothing to count.
            counts = self._ledger.counts()
            queued.update(dict.fromkeys(states, counts["queued"] + counts["awaiting_key"]))
        elif states:
            for (state, fingerprint, name), count in self._ledger.by_key().items():
                runs_on = pots.paying(name).keys.of(fingerprint)
                if state != "running":
                    queued[runs_on.fingerprint if runs_on is not None else fingerprint] += count
        return [
            {
                "fingerprint": fingerprint,
                "state": state,
                "reason": refused[fingerprint].message if state == "refused" else "",
                "running": running[fingerprint],
                "queued": queued[fingerprint],
            }
            for fingerprint, state in states.items()
        ]

    def waiting(self, batch: BatchView | None = None) -> list[WaitReason]:
        """Return why tasks wait: those of `batch`, or all."""
        scheduler = self._scheduler
        if batch is None:
            counts = self._ledger.counts()
            queued, awaiting, full = counts["queued"], counts["awaiting_key"], 0
            for name in scheduler.ready.full():
                with suppress(NoSuchBatch):
                    full += self._ledger.batch(name).queued
        else:
            queued, awaiting = batch.queued, batch.awaiting_key
            full = queued if scheduler.ready.is_full(batch.batch) else 0
        of_pots = {"": awaiting}
        if awaiting and scheduler.pots.named:
            of_pots = self._ledger.awaiting(None if batch is None else batch.batch)
        waits = [self._for_a_key(*each) for each in of_pots.items()]
        if batch is None or batch.running:
            # Running tasks that wait at a gate are not counted per batch.
            waits += self._limits.waiting()
        waits += [self._for_the_api(batch), self._at_the_provider(batch)]
        if scheduler.context.mode == "running":
            waits.append(WaitReason("draining", queued, detail="the host is being emptied: nothing new starts"))
        elif scheduler.suspect is not None:
            waits.append(WaitReason("after_crash", queued, detail="a task that a crash cut off runs alone first"))
        else:
            economy = scheduler.economy.store.queued(None if batch is None else batch.batch)
            waits += [
                WaitReason("batch_concurrency", full, detail="their batch runs as many at once as it may"),
                WaitReason("economy", economy, detail="they go out together in a Message Batch"),
                WaitReason("slots", queued - full - economy, detail="all slots of their engine are taken"),
            ]
        return [wait for wait in waits if wait.tasks > 0]

    def _for_a_key(self, pot: str, tasks: int) -> WaitReason:
        """Return the wait reason of the tasks of a pot that await a key."""
        why = self._scheduler.pots.why(pot)
        if not why:
            return WaitReason("no_key", tasks, detail="no key is in memory: any client brings it")
        if why["reason"] == POT_SPENT:
            return WaitReason(POT_SPENT, tasks, detail=why["message"])
        return WaitReason("key_refused", tasks, detail=f"the API refused the key: {why['message']}")

    def _at_the_provider(self, batch: BatchView | None) -> WaitReason:
        """Return the wait reason of economy tasks that were sent."""
        batches, tasks, since = self._scheduler.economy.store.sent(None if batch is None else batch.batch)
        sent = f"sent as {counted(batches, 'Message Batch', 'Message Batches')} at {_time_of_day(since)}"
        return WaitReason("economy_sent", tasks, detail=f"{sent}, usually answered within the hour; stopping is safe")

    def of_task(self, task_id: str) -> dict[str, Any]:
        """Return what the task waits for: `reason` as in `waiting`, `sandbox`, or "" for nothing but the model.

        With `ahead` in the queue, at most MAX_AHEAD; with the `status` of the API's last answer; `until` in Unix time.
        """
        known = self._ledger.known(task_id)
        live = self._scheduler.registry.live.get(task_id)
        if known.state != "running" and (live is None or live.job is None):
            return self._in_the_queue(known)
        if live is None or live.grant is None or live.claim is None:
            return {"reason": "economy" if live is None or live.job is None else ""}
        grant = live.grant
        gate = self._limits.gate(grant.key.fingerprint, grant.model)
        until = round(max(grant.again_at, time.time() + gate.held_s if gate.refusal is not None else 0.0))
        if grant.problem is not None:
            wait = {"reason": "api_error", "status": grant.problem.status}
            return wait | {"until": until} if until > time.time() else wait
        if grant.started > grant.sent:  # a request is not sent yet
            waits = gate.waiting(grant.model)
            if waits is None:
                return {"reason": "budget"}
            return {"reason": waits.reason} | ({} if waits.until is None else {"until": round(waits.until)})
        starts = live.claim.engine == "cli" and not grant.started
        return {"reason": "sandbox" if starts else ""}

    def _in_the_queue(self, known: KnownTask) -> dict[str, Any]:
        if known.state != "queued":
            return {"reason": ""}
        scheduler = self._scheduler
        if scheduler.context.mode == "running":
            return {"reason": "draining"}
        if scheduler.suspect is not None:
            return {"reason": "after_crash"}
        if scheduler.ready.is_full(known.batch):
            return {"reason": "batch_concurrency"}
        return {"reason": "slots", "ahead": self._ledger.ahead(known.seq, MAX_AHEAD)}

    def _for_the_api(self, batch: BatchView | None) -> WaitReason:
        """Return the wait reason of running tasks whose last request failed and will be retried."""
        met = [
            (live.grant.problem.message, live.grant.again_at)
            for live in self._scheduler.registry.running()
            if live.grant is not None and live.grant.problem is not None and live.grant.again_at
            if batch is None or (live.claim is not None and live.claim.batch == batch.batch)
        ]
        # The messages may differ; the most frequent one is shown.
        message = Counter(message for message, _ in met).most_common(1)[0][0] if met else ""
        until = min((at for _, at in met if at > time.time()), default=None)
        return WaitReason("api_error", len(met), until, f"the API's last answer: {message}")


def _time_of_day(moment: float) -> str:
    """Return the time, and the date unless it is today's. The reader may be in another time zone: UTC."""
    then, now = time.gmtime(moment), time.gmtime()
    return time.strftime("%H:%M UTC" if then[:3] == now[:3] else "%Y-%m-%d %H:%M UTC", then)
