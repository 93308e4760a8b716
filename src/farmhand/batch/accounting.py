"""The accounts of a running batch: the leases of its lines to workers, and the effects of results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from farmhand.batch.journal import CANCELLED, FAILED, FINAL, LEASED, SUCCEEDED, WAITING, Journal, Lease
from farmhand.batch.output import OutputFile, line_of, pico
from farmhand.core.money import PICO_PER_USD
from farmhand.core.rules import SHARED_BUDGET
from farmhand.places.base import Reply


@dataclass
class BatchTotals:
    """The totals of a batch. `duplicates` counts extra results of tasks that ran on two workers."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    cost_pico: int = 0
    unpriced: int = 0
    uncertain: int = 0
    duplicates: int = 0
    duplicates_pico: int = 0
    finished_now: int = 0

    @property
    def left(self) -> int:
        """Return the number of lines that are not final."""
        return self.total - self.succeeded - self.failed - self.cancelled

    def as_dict(self) -> dict[str, Any]:
        """Return the totals for JSON, with costs in US$."""
        values = asdict(self)
        values["cost_usd"] = values.pop("cost_pico") / PICO_PER_USD
        values["twice"], values["twice_usd"] = values.pop("duplicates"), values.pop("duplicates_pico") / PICO_PER_USD
        return values | {"done": self.succeeded}


@dataclass
class Intake:
    """The content of a reply apart from its results."""

    finished: int = 0
    cost_pico: int = 0
    denied: str = ""
    conflicts: list[str] = field(default_factory=list)


class BatchLedger:
    """Leases and results of one batch. Not thread-safe."""

    def __init__(self, journal: Journal, output: OutputFile) -> None:
        self.journal = journal
        self.batch = journal.about("batch")
        self._output = output
        counts = journal.counts()
        cost, uncertain, duplicates, duplicates_cost = journal.sums()
        self.waiting = counts[WAITING]
        self.totals = BatchTotals(
            total=sum(counts.values()),
            succeeded=counts[SUCCEEDED],
            failed=counts[FAILED],
            cancelled=counts[CANCELLED],
            cost_pico=cost,
            unpriced=journal.unpriced(),
            uncertain=uncertain,
            duplicates=duplicates,
            duplicates_pico=duplicates_cost,
        )

    def lease(self, worker: int, lost: Iterable[int], limit: int) -> list[bytes]:
        """Lease up to `limit` tasks to a worker, in the order of `Journal.lease`.

        The journal records the leases before the tasks are sent.
        """
        with self.journal.transaction():
            tasks = self.journal.lease(worker, lost, limit)
        self.waiting = self.journal.counts()[WAITING]
        return tasks

    def take_in(self, worker: int, name: str, reply: Reply) -> Intake:
        """Process a reply: write it to the journal, and from there to the output."""
        taken = Intake()
        totals, journal = self.totals, self.journal
        finished, cost, uncertain = totals.finished_now, totals.cost_pico, totals.uncertain
        with journal.transaction():
            journal.ack(worker, reply.accepted)
            journal.cancelled(worker, reply.cancelled)
            for lease_id in reply.stopped:
                lease = journal.find(worker, lease_id)
                if lease is not None and lease.state == LEASED:
                    self._take_back(lease)
            for result in reply.results:
                self._result(worker, name, result, taken)
            for refusal in reply.refused:
                self._refused(worker, name, refusal, taken)
            taken.finished, taken.cost_pico = totals.finished_now - finished, totals.cost_pico - cost
            journal.advance(worker, reply.next, taken.cost_pico, totals.uncertain - uncertain)
            if reply.halted is not None:
                journal.not_taken(worker, nor_doubtful=reply.unfinished == 0 and not reply.rest)
        self._output.write()
        self.waiting = journal.counts()[WAITING]
        return taken

    def _take_back(self, lease: Lease) -> None:
        """Revoke a lease that its worker has already dropped, and put the line back to wait."""
        self.journal.revoke(lease, sent=True)
        self.journal.put_back(lease)

    def _refused(self, worker: int, name: str, refusal: dict[str, Any], taken: Intake) -> None:
        """Process a refused task: its id was already used for another task, or it breaks a rule of the host."""
        lease = self.journal.find(worker, refusal["id"])
        if lease is None or lease.state != LEASED:
            return
        if refusal.get("code") in ("id_conflict", "pruned"):
            taken.conflicts.append(lease.task_id)
            self._take_back(lease)
            return
        error = {what: str(refusal.get(what) or "") for what in ("code", "message", "hint")}
        result = {"state": "failed", "text": "", "cost_usd": 0, "attempts": 0, "error": error}
        self._keep(worker, name, lease, result)

    def _result(self, worker: int, name: str, result: dict[str, Any], taken: Intake) -> None:
        state = result["state"]
        if state not in FINAL:
            return
        lease = self.journal.find(worker, result["id"])
        revoked = lease is None
        if revoked:
            lease = self.journal.find_revoked(worker, result["id"])
        if lease is None or (not revoked and lease.state != LEASED):
            return  # already processed
        cost = _cost(result) or 0
        self.totals.uncertain += int(result.get("uncertain") or 0)
        self.totals.cost_pico += cost
        if revoked:
            self.journal.settle(worker, result["id"])
        if not revoked and self._denied(result, taken):
            self._take_back(lease)
        elif state == "cancelled" and (revoked or lease.stopping):
            if not revoked:
                self.journal.put_back(lease)
        elif lease.state > LEASED:
            self.totals.duplicates += 1
            self.totals.duplicates_pico += cost
            self.journal.count_duplicate(worker, cost)
        else:
            self._keep(worker, name, lease, result)

    @staticmethod
    def _denied(result: dict[str, Any], taken: Intake) -> bool:
        """Return whether a budget other than the task's own had no room for it."""
        error = result.get("error") or {}
        message = str(error.get("message") or "")
        if error.get("code") != "budget" or not SHARED_BUDGET.search(message):
            return False
        taken.denied = message
        return True

    def _keep(self, worker: int, name: str, lease: Lease, result: dict[str, Any]) -> None:
        """Record `result` as the result of the line."""
        if lease.state == LEASED and lease.worker != worker:
            self.journal.revoke(lease, sent=False)
        state, cost = result["state"], _cost(result)
        line = line_of(lease.n, lease.task_id, name, result)
        self.journal.finish(lease.n, FINAL[state], worker, cost, line)
        setattr(self.totals, state, getattr(self.totals, state) + 1)
        self.totals.unpriced += cost is None
        self.totals.finished_now += 1


def _cost(result: dict[str, Any]) -> int | None:
    """Return the cost in pico-dollars; a task without a request costs nothing, whether or not it is priced."""
    usage = result.get("usage") or {}
    cost = pico(result.get("cost_usd"))
    return 0 if cost is None and not usage.get("requests") else cost
