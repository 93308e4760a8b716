"""The ledger's record of Message Batches at the provider and of the attempts in them.

A batch is recorded as `creating` before it is sent. If no answer comes, or the agent dies, it is searched for.
"""

# ruff: noqa: S608  (what is put into queries here are our own words)
from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from farmhand.agent.store import commands
from farmhand.agent.store.commands import NoLongerQueued
from farmhand.agent.store.ledger import Ledger

#: The attempts in a batch that have not ended.
_OUT = "FROM attempt a JOIN task t ON t.seq = a.task_seq WHERE a.provider_batch = ? AND a.outcome = 'running'"


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch at the provider: its number here, its id there ("" before the answer), its creation time (Unix seconds).

    `crashes` counts how often the agent ended while it processed results of the batch together, since a result was last
    processed alone. `suspected`: this has happened, so each result is processed alone.
    """

    no: int
    id: str
    key_fingerprint: str
    cancelled: bool
    requests: int
    created_at: float
    crashes: int = 0
    suspected: bool = False
    pot: str = ""


@dataclass(frozen=True, slots=True)
class BatchedAttempt:
    """An attempt in a batch. `final`: its task has ended meanwhile. `attempts` counts the task's attempts.

    `crashes` counts how often the agent ended while it processed a result of the task alone. `sent_at` is when its
    batch was made (Unix seconds); 0 until its results are collected.
    """

    seq: int
    number: int
    task_id: str
    batch: str
    final: bool
    attempts: int
    crashes: int = 0
    sent_at: float = 0.0
    pot: str = ""


def _sets(columns: str) -> Callable[..., asyncio.Future[int]]:
    """Return a transition that sets `columns` of a batch; the values for its marks follow the batch's number."""

    def method(store: MessageBatchStore, no: int, *values: Any) -> asyncio.Future[int]:
        query = f"UPDATE provider_batch SET {columns} WHERE no = ?"
        return store.ledger.write(lambda db: db.execute(query, (*values, no)).rowcount)

    return method


class MessageBatchStore:
    """The economy engine's part of the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        #: Part of every custom_id, so that a batch of another host with the same key is never mistaken for ours.
        self.mark = ledger.ledger_id()[:8]

    def custom_id(self, out: BatchedAttempt) -> str:
        """Return the attempt's custom_id in its batch."""
        return f"{self.mark}-{out.seq}-{out.number}"

    #: The provider has the batch, with this id.
    opened = _sets("state = 'open', id = ?")
    #: The provider was asked to process no more of it.
    cancelled = _sets("cancelled = 1")
    #: Its results are being processed; a crash counts for the batch.
    collecting = _sets("collecting = 1")
    #: The result of this task is next: until it is recorded, a crash counts for it. The batch's own count restarts.
    handling = _sets("handling = ?, crashes = 0")
    #: Its results are processed, or will be later: the agent did not crash over them.
    collected = _sets("collecting = 0, handling = NULL")
    #: No request of the batch is pending any more.
    ended = _sets("state = 'ended'")

    async def begin(
        self, most_pico: Mapping[int, int | None], key_fingerprint: str, pot: str = ""
    ) -> tuple[SentBatch, list[BatchedAttempt]]:
        """Record a batch that is about to be sent, and set its tasks to `running`, except those that have ended.

        `most_pico` maps sequence numbers to the worst-case cost, which stays reserved until the cost is known. A batch
        without tasks has ended.
        """
        now = self.ledger.now()

        def step(db: sqlite3.Connection) -> int:
            columns = "key_fingerprint, created_at, state, requests, pot"
            query = f"INSERT INTO provider_batch ({columns}) VALUES (?, ?, ?, 0, ?)"
            no, requests = int(db.execute(query, (key_fingerprint, now, "creating", pot)).lastrowid or 0), 0
            for seq, most in most_pico.items():
                with suppress(NoLongerQueued):
                    number = commands.start(db, now, seq, key_fingerprint, pot)
                    which = (no, seq, number)
                    db.execute("UPDATE attempt SET provider_batch = ? WHERE task_seq = ? AND number = ?", which)
                    commands.reserve(db, now, seq, 1, most)
                    requests += 1
            state = "creating" if requests else "ended"
            db.execute("UPDATE provider_batch SET requests = ?, state = ? WHERE no = ?", (requests, state, no))
            return no

        no = await self.ledger.write(step)
        out = self.out(no)
        return SentBatch(no, "", key_fingerprint, False, len(out), now, pot=pot), out

    def unended(self) -> list[SentBatch]:
        """Return the batches that are, or may be, at the provider."""
        rows = self.ledger.rows(
            "SELECT no, coalesce(id, ''), key_fingerprint, cancelled, requests, created_at, crashes, suspected, pot"
            " FROM provider_batch WHERE state != 'ended' ORDER BY no"
        )
        return [SentBatch(*row) for row in rows]

    def known(self) -> set[str]:
        """Return the provider's ids of all our batches."""
        return {row[0] for row in self.ledger.rows("SELECT id FROM provider_batch WHERE id IS NOT NULL")}

    def out(self, no: int) -> list[BatchedAttempt]:
        """Return the attempts in the batch that have not ended."""
        crashes = "(SELECT sum(crashes) FROM attempt WHERE task_seq = t.seq)"
        columns = f"a.task_seq, a.number, t.id, t.batch, t.done_no IS NOT NULL, t.attempts, {crashes}, 0.0, a.pot"
        return [BatchedAttempt(*row) for row in self.ledger.rows(f"SELECT {columns} {_OUT} ORDER BY a.task_seq", no)]

    def wanted(self, no: int) -> bool:
        """Return whether an unfinished task still needs an attempt in the batch."""
        return bool(self.ledger.rows(f"SELECT 1 {_OUT} AND t.done_no IS NULL LIMIT 1", no))

    def queued(self, batch: str | None) -> int:
        """Return the number of economy tasks that wait to be sent: those of `batch`, or all."""
        query = "SELECT count(*) FROM task WHERE state = 'queued' AND engine = 'economy'"
        rows = self.ledger.rows(query) if batch is None else self.ledger.rows(f"{query} AND batch = ?", batch)
        return int(rows[0][0])

    def sent(self, batch: str | None) -> tuple[int, int, float]:
        """Return how many Message Batches are at the provider, their requests, and when the first was made.

        With `batch` only those of that batch count: all tasks of a Message Batch are of one.
        """
        ours = (
            "EXISTS (SELECT 1 FROM attempt a JOIN task t ON t.seq = a.task_seq WHERE a.provider_batch = b.no"
            " AND a.outcome = 'running' AND (? IS NULL OR t.batch = ?))"
        )
        figures = "count(*), coalesce(sum(requests), 0), coalesce(min(created_at), 0)"
        query = f"SELECT {figures} FROM provider_batch b WHERE b.state != 'ended' AND {ours}"
        [row] = self.ledger.rows(query, batch, batch)
        return int(row[0]), int(row[1]), float(row[2])
