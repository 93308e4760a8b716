"""What came of the run of a seed: all that the oracle needs, in plain values, so that a test can tamper with it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.plan import Plan

Row = dict[str, Any]
TABLES = ("task", "attempt", "charge", "batch", "tally", "provider_batch", "reservation")


@dataclass
class Seen:
    """A task as a client saw it: its state, its attempts, its place, its text."""

    state: str
    attempts: int
    text: str


@dataclass
class Story:
    """`log` is the API's: every request, and every request of a Message Batch (method BATCH).

    `messages` has the id of the message that answered a request of a Message Batch, by its custom_id. `ledger` has the
    rows of each table. `seen` is what each task looked like to a client, in order, without repetitions. `cancelled` are
    the tasks that somebody asked to cancel. `crashes` counts how often the agent ended with tasks running.
    `charges` and `finished` are what the wire told at the end.
    """

    plan: Plan
    log: list[Row] = field(default_factory=list)
    messages: dict[str, str] = field(default_factory=dict)
    ledger: dict[str, list[Row]] = field(default_factory=dict)
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    crashes: int = 0
    charges: list[Row] = field(default_factory=list)
    finished: list[Row] = field(default_factory=list)
    agent_log: str = ""

    def see(self, task: Row) -> None:
        """A client was shown a task."""
        now = Seen(task["state"], task["attempts"], task["text"])
        before = self.seen.setdefault(task["id"], [])
        if not before or before[-1] != now:
            before.append(now)

    def read(self, ledger: Path, log: Path) -> None:
        """Take in the ledger of an agent that has ended, and the API's log."""
        self.ledger = tables(ledger)
        self.log = [json.loads(line) for line in log.read_text().splitlines()]


def tables(ledger: Path) -> dict[str, list[Row]]:
    """The rows of every table, as the file has them."""
    db = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    try:
        problems = db.execute("PRAGMA integrity_check").fetchone()[0]
        assert problems == "ok", problems
        return {name: [dict(row) for row in db.execute(f"SELECT * FROM {name}")] for name in TABLES}  # noqa: S608
    finally:
        db.close()
