"""The data of `GET /v1/status`, and the reasons why tasks wait."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from farmhand import __version__
from farmhand.agent.scheduler import Scheduler
from farmhand.agent.store.queries import NoSuchBatch
from farmhand.agent.store.rows import BatchView, WaitReason
from farmhand.core.task import FINAL_STATES
from farmhand.meter import Limits
from farmhand.meter.limits import GateWait

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

    def counts(self) -> dict[str, Any]:
        """Return the number of tasks by state, and the slots."""
        counts = self._ledger.counts()
        busy = self._scheduler.busy
        return {
            "queued": counts["queued"],
            "awaiting_key": counts["awaiting_key"],
            "running": counts["running"],
            "finished": {state: counts[state] for state in sorted(FINAL_STATES)},
            "slots": {name: {"total": n, "free": n - busy[name]} for name, n in self._scheduler.slots.items()},
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the whole status."""
        scheduler, config = self._scheduler, self._scheduler.context.config
        default = scheduler.keys.default
        return self.counts() | {
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
            "keys": self.keys(),
            "budget_day": scheduler.budgets.day_status(),
            "ledger": {
                "id": self._ledger.ledger_id(),
                "tasks": sum(self._ledger.counts().values()),
                "bytes": self._ledger.bytes_used(),
            },
        }

    def keys(self) -> list[dict[str, Any]]:
        """Return all keys that are held, refused, or superseded but still present or in use, with their task counts.

        A task counts as running from before its request is sent until no part of it can use the key any more.
        """
        keys = self._scheduler.keys
        running = Counter(live.key.fingerprint for live in self._scheduler.registry.running() if live.key is not None)
        states = dict.fromkeys(running, "superseded") | ({keys.reserve: "superseded"} if keys.reserve else {})
        states |= dict.fromkeys(keys.refused, "refused") | dict.fromkeys(keys.held, "held")
        queued: Counter[str] = Counter()
        if len(states) == 1:
            # All tasks run on this key, whichever they came with, so there is nothing to count.
            counts = self._ledger.counts()
            queued.update(dict.fromkeys(states, counts["queued"] + counts["awaiting_key"]))
        elif states:
            for (state, fingerprint), count in self._ledger.by_key().items():
                runs_on = keys.of(fingerprint)
                if state != "running":
                    queued[runs_on.fingerprint if runs_on is not None else fingerprint] += count
        return [
            {
                "fingerprint": fingerprint,
                "state": state,
                "reason": keys.refused[fingerprint].message if state == "refused" else "",
                "running": running[fingerprint],
                "queued": queued[fingerprint],
            }
            for fingerprint, state in states.items()
        ]

    def waiting(self, batch: BatchView | None = None) -> list[WaitReason | GateWait]:
        """Return why tasks wait: those of `batch`, or all."""
        scheduler = self._scheduler
        if batch is None:
            counts = self._ledger.counts()
            queued, awaiting = counts["queued"], counts["awaiting_key"]
            full = sum(self._queued_of(name) for name in scheduler.ready.full())
        else:
            queued, awaiting = batch.queued, batch.awaiting_key
            full = queued if scheduler.ready.is_full(batch.batch) else 0
        waits: list[WaitReason | GateWait] = [self._for_a_key(awaiting)]
        if batch is None or batch.running:
            # Running tasks that wait at a gate are not counted per batch.
            waits += self._limits.waiting()
        waits.append(self._for_the_api(batch))
        if scheduler.context.mode == "running":
            detail = "the host is being emptied: nothing new starts"
            waits.append(WaitReason(reason="draining", tasks=queued, detail=detail))
        elif scheduler.suspect is not None:
            detail = "a task that a crash cut off runs alone first"
            waits.append(WaitReason(reason="after_crash", tasks=queued, detail=detail))
        else:
            detail = "their batch runs as many at once as it may"
            waits.append(WaitReason(reason="batch_concurrency", tasks=full, detail=detail))
            economy = scheduler.economy.waits(None if batch is None else batch.batch)
            slots, detail = queued - full - economy.tasks, "all slots of their engine are taken"
            waits += [economy, WaitReason(reason="slots", tasks=slots, detail=detail)]
        return [wait for wait in waits if wait.tasks > 0]

    def _queued_of(self, batch: str) -> int:
        try:
            return self._ledger.batch(batch).queued
        except NoSuchBatch:
            return 0

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
        return WaitReason(reason="api_error", tasks=len(met), until=until, detail=f"the API's last answer: {message}")

    def _for_a_key(self, tasks: int) -> WaitReason:
        refusal = self._scheduler.keys.refusal
        if refusal is not None:
            return WaitReason(reason="key_refused", tasks=tasks, detail=f"the API refused the key: {refusal.message}")
        return WaitReason(reason="no_key", tasks=tasks, detail="no key is in memory: any client brings it")
