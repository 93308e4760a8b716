"""The accounts of a running batch: which line is leased to which worker, and what results mean for it."""

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
    """How the batch stands. `duplicates` are results of tasks that ran on two workers, of which one was kept."""

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
        """Lines that are not final."""
        return self.total - self.succeeded - self.failed - self.cancelled

    def as_dict(self) -> dict[str, Any]:
        """For JSON; costs in US$."""
        values = asdict(self)
        values["cost_usd"] = values.pop("cost_pico") / PICO_PER_USD
        values["twice"], values["twice_usd"] = values.pop("duplicates"), values.pop("duplicates_pico") / PICO_PER_USD
        return values | {"done": self.succeeded}


@dataclass
class Intake:
    """What a reply brought beside results."""

    finished: int = 0
    cost_pico: int = 0
    denied: str = ""
    conflicts: list[str] = field(default_factory=list)


class BatchLedger:
    """Leases and results of one batch. Not for several threads at once."""

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
        """The next tasks for a worker, `limit` at most: what it had and may have lost, what the workers `lost` have,
        what nobody has. The journal has them as leased before they go out.
        """
        with self.journal.transaction():
            tasks = self.journal.lease(worker, lost, limit)
        self.waiting = self.journal.counts()[WAITING]
        return tasks

    def take_in(self, worker: int, name: str, reply: Reply) -> Intake:
        """Take a reply in: first into the journal, and from there into the output."""
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
        """The lease is of no use any more, which its worker knows; the line waits."""
        self.journal.revoke(lease, sent=True)
        self.journal.put_back(lease)

    def _refused(self, worker: int, name: str, refusal: dict[str, Any], taken: Intake) -> None:
        """The worker does not take the task: its id is spent on something else, or a rule of the host is broken."""
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
            return  # seen before
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
        """Whether a budget that is not the task's own had no room for it."""
        error = result.get("error") or {}
        message = str(error.get("message") or "")
        if error.get("code") != "budget" or not SHARED_BUDGET.search(message):
            return False
        taken.denied = message
        return True

    def _keep(self, worker: int, name: str, lease: Lease, result: dict[str, Any]) -> None:
        """This is the result of the line."""
        if lease.state == LEASED and lease.worker != worker:
            self.journal.revoke(lease, sent=False)
        state, cost = result["state"], _cost(result)
        line = line_of(lease.n, lease.task_id, name, result)
        self.journal.finish(lease.n, FINAL[state], worker, cost, line)
        setattr(self.totals, state, getattr(self.totals, state) + 1)
        self.totals.unpriced += cost is None
        self.totals.finished_now += 1


def _cost(result: dict[str, Any]) -> int | None:
    """In pico-dollars; what made no request has cost nothing, priced or not."""
    usage = result.get("usage") or {}
    cost = pico(result.get("cost_usd"))
    return 0 if cost is None and not usage.get("requests") else cost
