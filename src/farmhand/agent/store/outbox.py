"""The ledger's record of Message Batches at the provider, and of the attempts that are in them.

A batch is noted as `creating` before it is sent: when no answer comes, or the agent dies meanwhile, it is looked for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from farmhand.agent.store import commands
from farmhand.agent.store.commands import AttemptEnd, NoLongerQueued
from farmhand.agent.store.ledger import Ledger
from farmhand.core.task import State


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch at the provider: its number here, its id there ("": no answer came yet), when it was made (Unix s).

    `crashes` counts the times that the agent ended while it took in results of it and handled none alone, since it last
    handled one. `suspected`: that has come to pass, so that each is handled alone.
    """

    no: int
    id: str
    key_fingerprint: str
    cancelled: bool
    requests: int
    created_at: float
    crashes: int = 0
    suspected: bool = False


@dataclass(frozen=True, slots=True)
class BatchedAttempt:
    """An attempt that is in a batch. `final`: its task has ended meanwhile. `attempts` counts those of the task.

    `crashes` counts the times that the agent ended while it handled a result of the task alone.
    """

    seq: int
    number: int
    task_id: str
    batch: str
    final: bool
    attempts: int
    crashes: int = 0


class MessageBatchStore:
    """What the economy engine writes to and reads off the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        #: In every custom_id, so that a batch of another host on the same key is never taken for ours.
        self.mark = ledger.ledger_id()[:8]

    def custom_id(self, out: BatchedAttempt) -> str:
        """What an attempt is called in its batch."""
        return f"{self.mark}-{out.seq}-{out.number}"

    # --- transitions ----------------------------------------------------------------------------------------------

    async def begin(
        self, most_pico: Mapping[int, int | None], key_fingerprint: str
    ) -> tuple[SentBatch, list[BatchedAttempt]]:
        """The tasks run, in a batch that is about to be sent. Those that have ended meanwhile are not in it.

        `most_pico`: what each may cost at the most, by its sequence number; it is spent until the cost is known.
        """
        now = self._ledger.now()

        def step(db: sqlite3.Connection) -> int:
            made = db.execute(
                "INSERT INTO provider_batch (key_fingerprint, state, requests, created_at)"
                " VALUES (?, 'creating', 0, ?)",
                (key_fingerprint, now),
            )
            no = int(made.lastrowid or 0)
            for seq, most in most_pico.items():
                try:
                    number = commands.start(db, seq, key_fingerprint, now)
                except NoLongerQueued:
                    continue
                db.execute("UPDATE attempt SET provider_batch = ? WHERE task_seq = ? AND number = ?", (no, seq, number))
                commands.reserve(db, seq, 1, most, now)
                db.execute("UPDATE provider_batch SET requests = requests + 1 WHERE no = ?", (no,))
            return no

        no = await self._ledger.write(step)
        out = self.out(no)
        return SentBatch(no, "", key_fingerprint, False, len(out), now), out

    async def opened(self, no: int, batch_id: str) -> None:
        """The provider has the batch and calls it `batch_id`."""
        await self._ledger.write(
            partial(_set, query="UPDATE provider_batch SET state = 'open', id = ? WHERE no = ?", values=(batch_id, no))
        )

    async def cancelled(self, no: int) -> None:
        """The provider was told to process no more of it."""
        await self._ledger.write(
            partial(_set, query="UPDATE provider_batch SET cancelled = 1 WHERE no = ?", values=(no,))
        )

    async def collecting(self, no: int) -> None:
        """Its results are being taken in; a crash counts for the batch."""
        query = "UPDATE provider_batch SET collecting = 1 WHERE no = ?"
        await self._ledger.write(partial(_set, query=query, values=(no,)))

    async def handling(self, no: int, seq: int) -> None:
        """The result of this task is next: until it is recorded, a crash counts for it. The batch has come on."""
        query = "UPDATE provider_batch SET handling = ?, crashes = 0 WHERE no = ?"
        await self._ledger.write(partial(_set, query=query, values=(seq, no)))

    async def collected(self, no: int) -> None:
        """They are taken in, or will be another time: the agent did not crash over them."""
        query = "UPDATE provider_batch SET collecting = 0, handling = NULL WHERE no = ?"
        await self._ledger.write(partial(_set, query=query, values=(no,)))

    async def ended(self, no: int) -> None:
        """Nothing of it is under way any more."""
        await self._ledger.write(
            partial(_set, query="UPDATE provider_batch SET state = 'ended' WHERE no = ?", values=(no,))
        )

    async def take_back(self, no: int, end: AttemptEnd, state: State) -> None:
        """The provider never had the batch: its tasks wait again."""
        now = self._ledger.now()
        out = self.out(no)

        def step(db: sqlite3.Connection) -> None:
            for one in out:
                commands.end_attempt(db, one.seq, end, now)
                commands.requeue(db, one.seq, state)
            _set(db, "UPDATE provider_batch SET state = 'ended' WHERE no = ?", (no,))

        await self._ledger.write(step)

    # --- reads ----------------------------------------------------------------------------------------------------

    def unended(self) -> list[SentBatch]:
        """The batches that are at the provider, or may be."""
        rows = self._ledger.rows(
            "SELECT no, coalesce(id, ''), key_fingerprint, cancelled, requests, created_at, crashes, suspected"
            " FROM provider_batch"
            " WHERE state != 'ended' ORDER BY no"
        )
        return [SentBatch(row[0], row[1], row[2], bool(row[3]), row[4], row[5], row[6], bool(row[7])) for row in rows]

    def known(self) -> set[str]:
        """The ids of all batches that are ours."""
        return {row[0] for row in self._ledger.rows("SELECT id FROM provider_batch WHERE id IS NOT NULL")}

    def out(self, no: int) -> list[BatchedAttempt]:
        """The attempts in the batch that have not ended."""
        rows = self._ledger.rows(
            "SELECT a.task_seq, a.number, t.id, t.batch, t.done_no IS NOT NULL, t.attempts,"
            " (SELECT sum(crashes) FROM attempt WHERE task_seq = t.seq)"
            " FROM attempt a JOIN task t ON t.seq = a.task_seq"
            " WHERE a.provider_batch = ? AND a.outcome = 'running' ORDER BY a.task_seq",
            no,
        )
        return [BatchedAttempt(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6]) for row in rows]

    def wanted(self, no: int) -> bool:
        """Whether anybody still waits for an attempt in the batch."""
        query = (
            "SELECT 1 FROM attempt a JOIN task t ON t.seq = a.task_seq"
            " WHERE a.provider_batch = ? AND a.outcome = 'running' AND t.done_no IS NULL LIMIT 1"
        )
        return bool(self._ledger.rows(query, no))

    def queued(self, batch: str | None) -> int:
        """How many economy tasks wait to go out: those of `batch`, or all."""
        where, values = ("", ()) if batch is None else (" AND batch = ?", (batch,))
        query = f"SELECT count(*) FROM task WHERE state = 'queued' AND engine = 'economy'{where}"  # noqa: S608  (our own words)
        return int(self._ledger.rows(query, *values)[0][0])


def _set(db: sqlite3.Connection, query: str, values: Sequence[object]) -> None:
    db.execute(query, values)
