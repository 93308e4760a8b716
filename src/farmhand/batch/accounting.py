"""The book-keeping of a running batch: which line goes to which host, and what its results mean for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from farmhand.batch.inputs import BadRecord
from farmhand.batch.journal import (
    CANCELLED,
    FAILED,
    SENT,
    STATE_NAMES,
    SUCCEEDED,
    WAITING,
    Journal,
    PendingLine,
    SentLine,
)
from farmhand.batch.output import PICO, OutputFile, line_of, pico
from farmhand.batch.prepare import BatchPlan, digest_of, encode
from farmhand.core.errors import UsageError
from farmhand.core.rules import SHARED_BUDGET

#: A portion ends with the task that passes this.
MAX_PORTION_BYTES = 4 * 1024 * 1024


@dataclass
class BatchTotals:
    """How the batch stands. `twice` are results of tasks that ran on two hosts, of which one was kept."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    cost_pico: int = 0
    unpriced: int = 0
    uncertain: int = 0
    twice: int = 0
    twice_pico: int = 0
    finished_now: int = 0

    @property
    def left(self) -> int:
        """Lines that are not final."""
        return self.total - self.succeeded - self.failed - self.cancelled

    def as_dict(self) -> dict[str, Any]:
        """For JSON; costs in US$."""
        values = asdict(self)
        for name in ("cost", "twice"):
            values[f"{name}_usd"] = values.pop(f"{name}_pico") / PICO
        return values | {"done": self.succeeded}


@dataclass
class Intake:
    """What an answer brought beside results."""

    finished: int = 0
    cost_pico: int = 0
    denied: str = ""
    conflicts: list[str] = field(default_factory=list)


class BatchLedger:
    """Lines and results of one batch. Not for several threads at once."""

    def __init__(self, plan: BatchPlan, journal: Journal, output: OutputFile) -> None:
        self.plan = plan
        self.journal = journal
        self.output = output
        self.batch = journal.about("batch")
        counts = journal.counts()
        cost, uncertain, twice, twice_cost = journal.sums()
        self.waiting = counts[WAITING]
        self.totals = BatchTotals(
            total=sum(counts.values()),
            succeeded=counts[SUCCEEDED],
            failed=counts[FAILED],
            cancelled=counts[CANCELLED],
            cost_pico=cost,
            unpriced=journal.unpriced(),
            uncertain=uncertain,
            twice=twice,
            twice_pico=twice_cost,
        )

    def portion(self, host: int, lost: Iterable[int], limit: int) -> list[bytes]:
        """The next tasks for a host, `limit` at most, journalled as sent: what it had and may have lost, what hosts
        have that are lost, what nobody has. Raises UsageError where the input is no longer what it was.
        """
        rows = self.journal.own_unsure(host, limit)
        if len(rows) < limit:
            rows += self.journal.adrift((no for no in lost if no != host), limit - len(rows))
        if len(rows) < limit:
            rows += self.journal.waiting(limit - len(rows))
        chosen, fields, size = [], [], 0
        for row in rows:
            if size > MAX_PORTION_BYTES:
                break
            made = self._fields(row)
            size += len(made["prompt"]) + 200
            chosen.append(row)
            fields.append(made)
        with self.journal.transaction():
            going = self.journal.send(chosen, host)
        self.waiting = self.journal.counts()[WAITING]
        pairs = zip(going, fields, strict=True)
        return [encode(self.plan.task(made, row.wire, self.batch)) for row, made in pairs]

    def _fields(self, row: PendingLine) -> dict[str, Any]:
        try:
            fields = self.plan.source.again(row.n, row.at)
            same = digest_of(self.plan.task(fields, row.wire, self.batch)) == row.digest
        except BadRecord:
            same = False
        if not same:
            raise UsageError(
                f"line {row.n} of the input is not what it was when the batch was begun",
                hint="put the input back as it was, or give --restart to begin anew",
            )
        return fields

    def sent_to(self, host: int) -> int:
        """How many lines the host has."""
        row = self.journal.db.execute("SELECT count(*) FROM line WHERE state = 1 AND host = ?", (host,)).fetchone()
        return int(row[0])

    def take_in(self, host: int, name: str, answer: dict[str, Any]) -> Intake:
        """Take an answer in: results are in the output, and safe, before the journal says so."""
        taken = Intake()
        before = (self.totals.finished_now, self.totals.cost_pico, self.totals.uncertain)
        with self.journal.transaction():
            self.journal.confirm(host, answer.get("taken") or [])
            self.journal.told(host, answer.get("cancelled") or [])
            for wire in answer.get("stopped") or []:
                self._stopped(host, wire)
            for result in answer.get("results") or []:
                self._result(host, name, result, taken)
            for refusal in answer.get("refused") or []:
                self._refused(host, name, refusal, taken)
            self.output.flush_held()
            cost = self.totals.cost_pico - before[1]
            self.journal.advance(host, int(answer.get("next") or 0), cost, self.totals.uncertain - before[2])
            if answer.get("halted"):
                nothing_there = answer.get("unfinished") == 0 and not answer.get("rest")
                self.journal.take_back(host, also_unsure=nothing_there)
            if self.totals.finished_now > before[0]:
                self.output.sync()
                self.output.release()
        taken.finished, taken.cost_pico = self.totals.finished_now - before[0], cost
        self.waiting = self.journal.counts()[WAITING]
        return taken

    def _stopped(self, host: int, wire: str) -> None:
        sent = self.journal.by_wire(wire)
        if sent is not None and sent.state == SENT and sent.host == host:
            self.journal.spend(host, sent.row, told=True)
            self.journal.put_back(sent.row)

    def _refused(self, host: int, name: str, refusal: dict[str, Any], taken: Intake) -> None:
        """The agent does not take the task: its id is spent on something else, or a rule of the host is broken."""
        sent = self.journal.by_wire(str(refusal.get("id")))
        if sent is None or sent.state != SENT or sent.host != host:
            return
        if refusal.get("code") in ("id_conflict", "pruned"):
            taken.conflicts.append(sent.row.id)
            self.journal.spend(host, sent.row, told=True)
            self.journal.put_back(sent.row)
            return
        error = {what: str(refusal.get(what) or "") for what in ("code", "message", "hint")}
        self._keep(host, name, sent, {"state": "failed", "text": "", "cost_usd": 0, "attempts": 0, "error": error})

    def _result(self, host: int, name: str, result: dict[str, Any], taken: Intake) -> None:
        wire, state = str(result.get("id")), str(result.get("state"))
        if state not in STATE_NAMES:
            return
        sent = self.journal.by_wire(wire)
        foreign = sent is None or sent.host != host
        if foreign:
            sent = self.journal.by_gone(host, wire)
        if sent is None or (not foreign and sent.state != SENT):
            return  # seen before
        self.totals.uncertain += int(result.get("uncertain") or 0)
        if foreign or sent.cost is None:
            self.totals.cost_pico += _cost(result) or 0
        if foreign:
            self.journal.end_gone(host, wire)
        if not foreign and self._denied(result, taken):
            self.journal.spend(host, sent.row, told=True)
            self.journal.put_back(sent.row)
        elif state == "cancelled" and (foreign or sent.stopped):
            if not foreign:
                self.journal.put_back(sent.row)
        elif sent.state > SENT:
            self.totals.twice += 1
            self.totals.twice_pico += _cost(result) or 0
            self.journal.count_twice(host, _cost(result) or 0)
        else:
            self._keep(host, name, sent, result)

    @staticmethod
    def _denied(result: dict[str, Any], taken: Intake) -> bool:
        """Whether a budget that is not the task's own had no room for it."""
        error = result.get("error") or {}
        message = str(error.get("message") or "")
        if error.get("code") != "budget" or not SHARED_BUDGET.search(message):
            return False
        taken.denied = message
        return True

    def _keep(self, host: int, name: str, sent: SentLine, result: dict[str, Any]) -> None:
        """This is the result of the line."""
        row = sent.row
        if sent.state == SENT and sent.host not in (None, host):
            assert sent.host is not None  # noqa: S101  (for the type checker)
            self.journal.spend(sent.host, row, told=False)
        state, cost = str(result["state"]), _cost(result)
        self.output.put(row.n, line_of(row.n, row.id, name, result))
        self.journal.finish(row.n, STATE_NAMES[state], host, cost)
        setattr(self.totals, state, getattr(self.totals, state) + 1)
        self.totals.unpriced += cost is None
        self.totals.finished_now += 1


def _cost(result: dict[str, Any]) -> int | None:
    """In pico-dollars; what made no request has cost nothing, priced or not."""
    usage = result.get("usage") or {}
    cost = pico(result.get("cost_usd"))
    return 0 if cost is None and not usage.get("requests") else cost
