"""The accounts of a running batch: the effects of replies on the journal, the output and the totals."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import msgspec

from farmhand.batch.bend import Bending, needs
from farmhand.batch.journal import FINAL, LEASED, Journal, Lease
from farmhand.batch.output import OutputFile
from farmhand.batch.sources import OTHERS, form_of
from farmhand.core import money
from farmhand.core.rules import by_shared_budget
from farmhand.places.base import Reply, TaskRows

#: The fields of a result that are not in the output, or are written by this module.
_NOT_KEPT = frozenset({"id", "n", "host", "finish_seq", "batch", "second", "input"})


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

    def add(self, change: BatchTotals) -> None:
        """Add the totals of a reply."""
        for one in fields(BatchTotals):
            setattr(self, one.name, getattr(self, one.name) + getattr(change, one.name))

    @property
    def left(self) -> int:
        """Return the number of lines that are not final."""
        return self.total - self.succeeded - self.failed - self.cancelled

    def as_dict(self) -> dict[str, Any]:
        """Return the totals for JSON, with costs in US$."""
        values = asdict(self)
        values["cost_usd"] = values.pop("cost_pico") / money.PICO_PER_USD
        values["twice"], values["twice_usd"] = (
            values.pop("duplicates"),
            values.pop("duplicates_pico") / money.PICO_PER_USD,
        )
        return values | {"done": self.succeeded}


@dataclass
class Intake(BatchTotals):
    """What a reply added to the totals; whether ids were used already for other tasks; the error of a full budget.

    `bends`: the budget was full for tasks that go on at a lower price, or wait for room. `counted` are the results.
    """

    conflict: bool = False
    denied: dict[str, Any] = field(default_factory=dict)
    bends: bool = False
    counted: list[dict[str, Any]] = field(default_factory=list)


class BatchLedger:
    """Processes the replies of workers. Not thread-safe."""

    def __init__(self, journal: Journal, output: OutputFile) -> None:
        self.journal = journal
        self.bending: Bending | None = None
        #: Called for each result that counts, also that of another run, with its rows of the place's ledger.
        self.on_result: Callable[[dict[str, Any], TaskRows], None] | None = None
        self.batch = journal.about("batch")
        self.totals = BatchTotals(**journal.totals())
        self._output = output
        #: Whether the output's answers say when they were made, as those of others do.
        self._dated = form_of(journal) in OTHERS

    @property
    def waiting(self) -> int:
        """Return how many lines wait for a worker."""
        return self.journal.waiting()

    def finished_at(self) -> float | None:
        """Return when the last line became final, in Unix seconds; None while lines are left, or if it was not noted.

        The first call after that notes it.
        """
        if self.totals.left:
            return None
        noted = self.journal.about("finished_at")
        if not noted and self.totals.finished_now:
            noted = str(round(time.time(), 3))
            with self.journal.transaction():
                self.journal.note("finished_at", noted)
        return float(noted) if noted else None

    def take_in(self, worker: int, name: str, reply: Reply) -> Intake:
        """Process a reply: write it to the journal, and from there to the output."""
        taken, journal = Intake(), self.journal
        with journal.transaction():
            journal.ack(worker, reply.accepted)
            journal.cancelled(worker, reply.cancelled)
            for lease_id in reply.stopped:
                if (lease := journal.find(worker, lease_id)) is not None and lease.held:
                    journal.take_back(lease)
            for result in reply.results:
                self._result(worker, name, result, taken)
            for refusal in reply.refused:
                self._refused(worker, name, refusal, taken)
            taken.cost_pico += reply.unclaimed_pico
            spent = (taken.cost_pico, taken.uncertain, taken.duplicates, taken.duplicates_pico)
            journal.advance(worker, reply.next, *spent)
            if reply.halted is not None:
                journal.not_taken(worker, nor_doubtful=reply.unfinished == 0 and not reply.rest)
        if self.bending is not None:
            self.bending.since += taken.cost_pico
        self.totals.add(taken)
        if self.on_result is not None:
            for result in taken.counted:
                self.on_result(result, reply.rows.get(str(result["id"]), TaskRows()))
        self._output.write()
        return taken

    def _refused(self, worker: int, name: str, refusal: dict[str, Any], taken: Intake) -> None:
        """Process a refused task: its id was already used for another task, or it breaks a rule of the host."""
        lease = self.journal.find(worker, refusal["id"])
        if lease is None or not lease.held:
            return
        if refusal.get("code") in ("id_conflict", "pruned"):
            taken.conflict = True
            self.journal.take_back(lease)
            return
        error = {what: str(refusal.get(what) or "") for what in ("code", "message", "hint")}
        result = {"state": "failed", "text": "", "cost_usd": 0, "attempts": 0, "error": error}
        self._keep(worker, name, lease, result, taken)

    def _result(self, worker: int, name: str, result: dict[str, Any], taken: Intake) -> None:
        state = result["state"]
        lease = self.journal.find(worker, result["id"]) if state in FINAL else None
        if lease is None or not (lease.held or lease.revoked or result.get("second")):
            return  # unknown, or already processed
        taken.counted.append(result)
        cost = _cost(result) or 0
        taken.cost_pico += cost
        taken.uncertain += int(result.get("uncertain") or 0)
        if lease.revoked:
            self.journal.settle(worker, result["id"])
        if denied := _denied(result):
            # Of a revoked lease it means nothing: the line is elsewhere.
            if lease.held:
                self._full(lease, denied, taken)
        elif state == "cancelled" and (lease.revoked or lease.stopping):
            if lease.held:
                self.journal.put_back(lease)
        elif lease.state > LEASED:
            taken.duplicates += 1
            taken.duplicates_pico += cost
        else:
            self._keep(worker, name, lease, result, taken)

    def _full(self, lease: Lease, denied: dict[str, Any], taken: Intake) -> None:
        """Put back a line for which a budget had no room. If the budget bends, it goes out again at a lower price.

        One that had no room at its lowest price is held.
        """
        bending, bent = self.bending, self.journal.bent
        self.journal.take_back(lease)
        if bending is None or not bending.why:
            taken.denied = denied
            if bending is not None and bending.once and bending.shape(self.journal.body(lease.n)) is None:
                bent.hold(lease.n)
            return
        taken.bends, bending.last, bending.since = True, denied, 0
        if bent.note(lease.id) is not None or bending.shape(self.journal.body(lease.n)) is None:
            bent.hold(lease.n, needs(denied))

    def _keep(self, worker: int, name: str, lease: Lease, result: dict[str, Any], taken: Intake) -> None:
        """Record `result` as the result of the line."""
        if lease.state == LEASED and lease.worker != worker:
            self.journal.revoke(lease, sent=False)
        state, cost, result_id = result["state"], _cost(result), result.get("id") or lease.id
        rest = {key: value for key, value in result.items() if key not in _NOT_KEPT}
        if (columns := self.journal.columns_of(lease.n)) is not None:
            rest["input"] = msgspec.Raw(columns)
        if (note := self.journal.bent.note(result_id)) is not None:
            rest["bent"] = msgspec.Raw(note)
            self.journal.bent.done(result_id)
        if self._dated:
            rest["at"] = int(time.time())
        line = msgspec.json.encode({"n": lease.n, "id": lease.task_id, "host": name, **rest}) + b"\n"
        self.journal.finish(lease.n, FINAL[state], worker, cost, line)
        setattr(taken, state, getattr(taken, state) + 1)
        taken.unpriced += cost is None
        taken.finished_now += 1


def _denied(result: dict[str, Any]) -> dict[str, Any]:
    """Return the error of a task for which a budget other than its own had no room; {}: there is none."""
    error = result.get("error") or {}
    return error if by_shared_budget(error) else {}


def _cost(result: dict[str, Any]) -> int | None:
    """Return the cost in pico-dollars; a task without a request costs nothing, whether or not it is priced."""
    usage, cost_usd = result.get("usage") or {}, result.get("cost_usd")
    if cost_usd is None:
        return None if usage.get("requests") else 0
    return pico(cost_usd)


def pico(cost_usd: float) -> int:
    """Return a cost in pico-dollars."""
    # The decimal text of a float is the intended amount; the binary value differs slightly.
    return money.pico_of(cost_usd)
