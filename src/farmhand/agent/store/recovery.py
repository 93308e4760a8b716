"""Recovery at start: tasks that ran when the previous agent ended count as crashed.

A task that crashes the agent runs no more often than any other failing task: the limit on attempts is also the limit on
the agent's crashes over it. The first time it may crash with unrelated tasks beside it; after that it runs alone.
"""

# ruff: noqa: S608  (what is put into queries here are our own words)
from __future__ import annotations

import sqlite3

from farmhand.agent.store.commands import finish
from farmhand.agent.store.schema import SUMS
from farmhand.core.task import Result, TaskError

CRASHED = "agent_crashed"
_RAN = "state = 'running' AND engine != 'economy'"


def recover(db: sqlite3.Connection, now: float, attempts: int) -> tuple[int, list[str]]:
    """Recover after a start: nothing runs and no key is in memory, so every unfinished task awaits a key.

    Every task that ran has crashed, whatever the cause. A task with `attempts` crashes fails. The API may have charged
    for requests that were reserved but not answered: they stay reserved and count as uncertain. Tasks in a Message
    Batch still run at the provider; the economy engine checks them.

    Return how many tasks await a key, and the ids of those that failed.
    """
    db.execute(
        "UPDATE task SET uncertain = uncertain + (SELECT count(*) FROM reservation r JOIN attempt a"
        " ON a.task_seq = r.task_seq AND a.number = r.attempt WHERE r.task_seq = seq AND a.outcome = 'running')"
        f" WHERE {_RAN}"
    )
    db.execute(
        "UPDATE attempt SET outcome = 'interrupted', finished_at = ?, crashes = crashes + 1"
        f" WHERE outcome = 'running' AND task_seq IN (SELECT seq FROM task WHERE {_RAN})",
        (now,),
    )
    poison = db.execute(
        f"SELECT seq, id, sum(crashes) FROM task JOIN attempt ON task_seq = seq WHERE {_RAN}"
        " GROUP BY seq HAVING sum(crashes) >= ?",
        (attempts,),
    ).fetchall()
    for row in poison:
        finish(db, now, row[0], crashed(row[1], row[2]))
    db.execute(f"UPDATE task SET state = 'awaiting_key' WHERE state = 'queued' OR {_RAN}")
    _blame(db)
    waiting = int(db.execute("SELECT coalesce(sum(awaiting_key), 0) FROM tally").fetchone()[0])
    return waiting, [row[1] for row in poison]


def recount(db: sqlite3.Connection, _now: float) -> None:
    """Recompute the sums: the rows come from a damaged file, and some may be lost."""
    sums = ", ".join(f"sum({value.format('')})" for value in SUMS.values())
    db.execute("DELETE FROM tally")
    db.execute(
        f"INSERT INTO tally (batch, {', '.join(SUMS)}, last_done)"
        f" SELECT batch, {sums}, coalesce(max(done_no), 0) FROM task GROUP BY batch"
    )
    db.execute(
        "INSERT INTO batch (name, created_at) SELECT batch, min(created_at) FROM task WHERE batch != ''"
        " GROUP BY batch ON CONFLICT DO NOTHING"
    )
    db.execute(
        "INSERT INTO counter SELECT 'done', coalesce(max(done_no), 0) FROM task WHERE true"
        " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
    )


def _blame(db: sqlite3.Connection) -> None:
    """Count the crash for the result that was processed alone, if a Message Batch was being collected.

    If there was none, count it for the batch; from then on each of its results is processed alone.
    """
    handled = "outcome = 'running' AND provider_batch = no AND task_seq = handling"
    db.execute(
        "UPDATE provider_batch SET crashes = crashes + 1, suspected = 1"
        f" WHERE collecting AND NOT EXISTS (SELECT 1 FROM attempt WHERE {handled})"
    )
    db.execute(f"UPDATE attempt SET crashes = crashes + 1 WHERE EXISTS (SELECT 1 FROM provider_batch WHERE {handled})")
    db.execute("UPDATE provider_batch SET collecting = 0, handling = NULL WHERE collecting")


def crashed(task_id: str, times: int) -> Result:
    """Return the result of a task that was running each time the agent ended unexpectedly."""
    often = "once" if times == 1 else f"{times} times"
    message = f"the agent ended {often} while it ran this task: it crashed, was killed, or hung"
    hint = "see its journal (journalctl -u jada-agent), and change the task before it is sent again"
    return Result(id=task_id, state="failed", error=TaskError(code=CRASHED, message=message, hint=hint))
