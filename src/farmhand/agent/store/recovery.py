"""Recovery at a start: what ran when the agent before ended has crashed with it, and that counts.

A task that takes its agent down runs no more often than any other task fails. The number of attempts is how often one
task can restart the agent: the first time beside others, whose only fault that was, and from then on alone.
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
    """After a start: nothing runs and no key is there, so every unfinished task awaits one.

    What ran has crashed, whatever is to blame for it. A task that was running at `attempts` crashes fails. The API may
    have charged for requests that were reserved for and not answered: they stay reserved, and are counted as uncertain.
    What has gone out in a Message Batch still runs, at the provider: the economy engine finds out.

    Returns how many tasks await a key, and the ids of those that have failed.
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
    """The rows come from a damaged file, and some may be lost: make the sums that are kept beside them once more."""
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
    """Of Message Batches that were being taken in, the crash counts for the result that was handled alone.

    Where there was none, it counts for the batch, and from then on each result is handled alone.
    """
    handled = "outcome = 'running' AND provider_batch = no AND task_seq = handling"
    db.execute(
        "UPDATE provider_batch SET crashes = crashes + 1, suspected = 1"
        f" WHERE collecting AND NOT EXISTS (SELECT 1 FROM attempt WHERE {handled})"
    )
    db.execute(f"UPDATE attempt SET crashes = crashes + 1 WHERE EXISTS (SELECT 1 FROM provider_batch WHERE {handled})")
    db.execute("UPDATE provider_batch SET collecting = 0, handling = NULL WHERE collecting")


def crashed(task_id: str, times: int) -> Result:
    """The result of a task that was running each time the agent ended without being told to."""
    often = "once" if times == 1 else f"{times} times"
    message = f"the agent ended {often} while it ran this task: it crashed, was killed, or hung"
    hint = "see its journal (journalctl -u jada-agent), and change the task before it is sent again"
    return Result(id=task_id, state="failed", error=TaskError(code=CRASHED, message=message, hint=hint))
