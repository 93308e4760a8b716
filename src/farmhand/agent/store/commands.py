"""The ledger's state transitions: functions that take an open transaction, which `Ledger.write` commits, and the time.

None relies on what its caller read before: a final task stays final, whatever arrives late.
"""

# ruff: noqa: S608  (what is put into queries here are our own column names and marks)
from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence, Sized
from dataclasses import dataclass, field

import msgspec

from farmhand.agent.store import pot_days
from farmhand.agent.store.identity import digest, state_of
from farmhand.agent.store.records import USAGE
from farmhand.agent.store.schema import SUMS
from farmhand.core.rules import by_shared_budget
from farmhand.core.task import Result, State, Task, TaskError, Usage, resolve_model

#: Maximum rows that one step changes, so that a large queue does not delay other steps.
CHUNK = 2000
#: A larger task loses its pictures, PDFs and earlier turns when it ends.
_SPEC_BYTES = 16 * 1024
CRASHED = "agent_crashed"
CANCELLED = TaskError(code="cancelled", message="the task was cancelled")
#: Above any token count or cost in pico-dollars of one request. Sums of many still fit into an SQLite integer.
_MOST = 2**53
_RAN = "state = 'running' AND engine != 'economy'"


class OddFigure(ValueError):
    """A figure that no request can have used or cost, and that could overflow the sums."""


class NoLongerQueued(Exception):
    """The task is not waiting any more: it was cancelled."""


@dataclass(slots=True, kw_only=True)
class ChargeRow:
    """An answered request: the usage that the API counted, and its cost (None if unknown).

    `terms` are the conditions besides tokens that decided the cost, as text of `farmhand.core.terms.Terms`.
    """

    request_id: str
    model: str
    usage: Usage
    cost_pico: int | None
    economy: bool = False
    terms: str = ""


@dataclass(slots=True, kw_only=True)
class AttemptEnd:
    """The end of an attempt, successful or not, or its interim state.

    `uncertain` counts requests that may have been charged for at an unknown cost. `held` maps those requests' numbers
    to the pico-dollars that stay reserved, None if the price is unknown. If `held` is None, the attempt's whole
    reservation stays.
    """

    outcome: str
    charges: Sequence[ChargeRow] = field(default_factory=list)
    retries: int = 0
    uncertain: int = 0
    price_version: str = ""
    held: Mapping[int, int | None] | None = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, frozen=True)
class TaskEnd:
    """A task that has just become final: its state, its error code, and its times."""

    state: State
    error: str
    engine: str
    created_at: float
    started_at: float | None
    finished_at: float


def _marks(values: Sized) -> str:
    return ", ".join("?" * len(values))


def _insert(db: sqlite3.Connection, table: str, **values: object) -> None:
    db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({_marks(values)})", tuple(values.values()))


def submit(
    db: sqlite3.Connection,
    now: float,
    tasks: Sequence[Task],
    state: State,
    key_fingerprint: str | None,
    without_key: Collection[str] = (),
) -> dict[str, State]:
    """Record new tasks in `state`, all or none; a known id keeps its state. Return the state by id.

    Those of a pot are queued, or await a key if the pot is in `without_key`.
    Raise IdConflict if a known id has other content, or its task has run and was pruned.
    """
    states: dict[str, State] = {}
    for task in tasks:
        before = state_of(db, task)
        first = state
        if task.pot:
            first = "awaiting_key" if task.pot in without_key else "queued"
        states[task.id] = before or first
        if before:
            continue
        if task.batch:
            db.execute("INSERT INTO batch (name, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING", (task.batch, now))
        _insert(
            db,
            "task",
            id=task.id,
            spec=msgspec.json.encode(task),
            digest=digest(task),
            state=first,
            batch=task.batch,
            model=resolve_model(task.model),
            engine=task.resolved_engine,
            pot=task.pot,
            priority=task.priority,
            work_class=task.work_class,
            labels=msgspec.json.encode(task.labels),
            key_fingerprint=None if task.pot else key_fingerprint,
            created_at=now,
        )
    return states


def start(db: sqlite3.Connection, now: float, seq: int, key_fingerprint: str, pot: str = "") -> int:
    """Set the task to `running`; the key of `pot` pays. Return the number of the new attempt.

    Raise NoLongerQueued if the task is final.
    """
    query = (
        "UPDATE task SET state = 'running', attempts = attempts + 1, key_fingerprint = ?,"
        " started_at = coalesce(started_at, ?) WHERE seq = ? AND done_no IS NULL"
    )
    if not db.execute(query, (key_fingerprint, now, seq)).rowcount:
        raise NoLongerQueued
    query = (
        "INSERT INTO attempt (task_seq, number, key_fingerprint, started_at, pot)"
        " SELECT ?1, coalesce(max(number), 0) + 1, ?2, ?3, ?4 FROM attempt WHERE task_seq = ?1 RETURNING number"
    )
    return int(db.execute(query, (seq, key_fingerprint, now, pot)).fetchone()[0])


def reserve(db: sqlite3.Connection, now: float, seq: int, request: int, most_pico: int | None) -> None:
    """Reserve `most_pico` for a request of the running attempt before it is sent. Raise NoLongerQueued if none runs."""
    if most_pico is not None and not 0 <= most_pico <= _MOST:
        most_pico = None
    query = (
        "INSERT OR REPLACE INTO reservation SELECT task_seq, number, ?, ?, ? FROM attempt"
        " WHERE task_seq = ? AND outcome = 'running'"
    )
    if not db.execute(query, (request, most_pico, now, seq)).rowcount:
        raise NoLongerQueued


def charge(db: sqlite3.Connection, now: float, seq: int, so_far: AttemptEnd) -> None:
    """Record the running attempt's charges so far, so that a crash cannot lose them. Do nothing if no attempt runs.

    Raise OddFigure for an impossible figure.
    """
    running = db.execute("SELECT number FROM attempt WHERE task_seq = ? AND outcome = 'running'", (seq,)).fetchone()
    if running is not None:
        _charge(db, now, seq, running[0], so_far)


def _charge(db: sqlite3.Connection, now: float, seq: int, number: int, end: AttemptEnd) -> None:
    """Record the attempt's new charges and add them to the task's sums.

    An unknown cost makes the task's cost unknown for good: NULL plus a number is NULL.
    """
    sums = ", ".join(f"{name} = {name} + ?" for name in ("cost_pico", *USAGE))
    had = db.execute("SELECT count(*) FROM charge WHERE task_seq = ? AND attempt = ?", (seq, number)).fetchone()[0]
    for one in end.charges[had:]:
        used = {name: getattr(one.usage, name) for name in USAGE}
        for figure in (one.cost_pico or 0, *used.values()):
            if type(figure) is not int or not 0 <= figure <= _MOST:
                raise OddFigure(f"{figure!r:.40} is no count of tokens and no cost")
        _insert(
            db,
            "charge",
            task_seq=seq,
            attempt=number,
            request_id=one.request_id,
            model=one.model,
            cost_pico=one.cost_pico,
            price_version=end.price_version,
            created_at=now,
            economy=one.economy,
            terms=one.terms,
            **used,
        )
        values = (end.price_version, one.cost_pico, *used.values(), seq)
        db.execute(f"UPDATE task SET price_version = ?, {sums} WHERE seq = ?", values)
        if one.cost_pico:
            pot_days.add(db, now, seq, number, one.cost_pico)
    if end.held is None:
        return
    # Keep only the reservations in `held`: the cost of the attempt's other requests is known.
    which = "WHERE task_seq = ? AND attempt = ? AND request"
    db.execute(f"DELETE FROM reservation {which} NOT IN ({_marks(end.held)})", (seq, number, *end.held))
    changes = [(pico, seq, number, request) for request, pico in end.held.items()]
    db.executemany(f"UPDATE reservation SET pico = ? {which} = ?", changes)


def end_attempt(db: sqlite3.Connection, now: float, seq: int, end: AttemptEnd) -> bool:
    """Record the end of the task's running attempt with all its charges. A parked attempt does not count as one.

    Return False, with nothing changed, if no attempt runs: its end was recorded before.
    """
    running = db.execute(
        "UPDATE attempt SET outcome = ?, finished_at = ? WHERE task_seq = ? AND outcome = 'running' RETURNING number",
        (end.outcome, now, seq),
    ).fetchone()
    if running is None:
        return False
    _charge(db, now, seq, running[0], end)
    db.execute(
        "UPDATE task SET attempts = attempts - ?, retries = retries + ?, uncertain = uncertain + ?, price_version = ?"
        " WHERE seq = ?",
        (int(end.outcome == "parked"), end.retries, end.uncertain, end.price_version, seq),
    )
    return True


def requeue(db: sqlite3.Connection, seq: int, state: State) -> None:
    """Return the running task to `state`, in which it waits."""
    db.execute("UPDATE task SET state = ? WHERE seq = ? AND state = 'running'", (state, seq))


def finish(db: sqlite3.Connection, now: float, seq: int, result: Result) -> TaskEnd | None:
    """Record the final state and the result. Return None, with nothing changed, if the task is final already."""
    error, structured = result.error, result.structured
    code = None if error is None else error.code
    if error is not None and by_shared_budget(msgspec.to_builtins(error)):
        code = "budget_shared"  # the records of finished tasks have no message
    times = db.execute(
        "UPDATE task SET state = ?, finished_at = ?, text = ?, structured = ?, stop_reason = ?, error_code = ?,"
        " error = ?, done_no = (SELECT value + 1 FROM counter WHERE name = 'done')"
        " WHERE seq = ? AND done_no IS NULL RETURNING engine, created_at, started_at",
        (
            result.state,
            now,
            result.text,
            None if structured is None else msgspec.json.encode(structured),
            result.stop_reason,
            code,
            None if error is None else msgspec.json.encode(error),
            seq,
        ),
    ).fetchone()
    if times is None:
        return None
    # Pictures, PDFs and earlier turns are not needed any more; their digest still tells the task from another.
    # `dropped` says so to who would run it again.
    db.execute(
        "UPDATE task SET spec = CAST(json_insert(json_remove(CAST(spec AS TEXT), '$.files', '$.history'),"
        " '$.dropped', json('true')) AS BLOB) WHERE seq = ? AND length(spec) > ?"
        " AND coalesce(json_type(CAST(spec AS TEXT), '$.files'), json_type(CAST(spec AS TEXT), '$.history')) NOT NULL",
        (seq, _SPEC_BYTES),
    )
    db.execute("UPDATE counter SET value = value + 1 WHERE name = 'done'")
    return TaskEnd(state=result.state, error="" if error is None else error.code, finished_at=now, **times)


def cancel_waiting(db: sqlite3.Connection, now: float, batch: str) -> list[str]:
    """Cancel up to CHUNK tasks of the batch that hold no slot. Return their ids; empty when none are left."""
    rows: list[sqlite3.Row] = []
    for which in ("state = 'queued'", "state = 'awaiting_key'", "state = 'running' AND engine = 'economy'"):
        query = f"SELECT seq, id FROM task WHERE {which} AND batch = ? LIMIT ?"
        rows += db.execute(query, (batch, CHUNK - len(rows))).fetchall()
    for row in rows:
        finish(db, now, row["seq"], Result(id=row["id"], state="cancelled", error=CANCELLED))
    return [row["id"] for row in rows]


def resume(db: sqlite3.Connection, _now: float, key_fingerprint: str, pot: str = "") -> int:
    """Queue up to CHUNK tasks of the pot that await a key with this one. Return how many; 0 when none are left."""
    return db.execute(
        "UPDATE task SET state = 'queued', key_fingerprint = ? WHERE seq IN"
        " (SELECT seq FROM task WHERE state = 'awaiting_key' AND pot = ? LIMIT ?)",
        (key_fingerprint, pot, CHUNK),
    ).rowcount


def park(
    db: sqlite3.Connection, _now: float, held: Sequence[str], refused: Sequence[str], *, default: bool, pot: str = ""
) -> int:
    """Move up to CHUNK queued tasks of the pot without a usable key to `awaiting_key`.

    Return how many; 0 when none are left. `held` and `refused` are fingerprints. A task whose key is in neither runs on
    the default key, if there is one.
    """
    names = refused if default else held
    which = "key_fingerprint IN" if default else "coalesce(key_fingerprint, '') NOT IN"
    return db.execute(
        "UPDATE task SET state = 'awaiting_key' WHERE seq IN"
        f" (SELECT seq FROM task WHERE state = 'queued' AND pot = ? AND {which} ({_marks(names)}) LIMIT ?)",
        (pot, *names, CHUNK),
    ).rowcount


def note_key(db: sqlite3.Connection, now: float, fingerprint: str) -> None:
    """Record the first time that this key was received."""
    db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO NOTHING", (f"key:{fingerprint}", str(now)))


def put_batch(db: sqlite3.Connection, now: float, name: str, max_pico: int | None, concurrency: int | None) -> None:
    """Create the batch, or change its limits."""
    db.execute(
        "INSERT INTO batch (name, max_pico, concurrency, created_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET max_pico = excluded.max_pico, concurrency = excluded.concurrency",
        (name, max_pico, concurrency, now),
    )


# --- recovery ---------------------------------------------------------------------------------------------------------
#
# A task that crashes the agent runs no more often than any other failing task: the limit on attempts is also the limit
# on the agent's crashes over it. The first time it may crash with unrelated tasks beside it; after that it runs alone.


def recover(db: sqlite3.Connection, now: float, attempts: int) -> list[str]:
    """Recover after a start: nothing runs and no key is in memory, so every unfinished task awaits a key.

    Every task that ran has crashed, whatever the cause. A task with `attempts` crashes fails. The API may have charged
    for requests that were reserved but not answered: they stay reserved and count as uncertain. Tasks in a Message
    Batch still run at the provider; the economy engine checks them.

    Return the ids of the tasks that failed.
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
    # If a Message Batch was being collected, the crash counts for the result that was processed alone. If there was
    # none, it counts for the batch; from then on each of its results is processed alone.
    handled = "outcome = 'running' AND provider_batch = no AND task_seq = handling"
    db.execute(
        "UPDATE provider_batch SET crashes = crashes + 1, suspected = 1"
        f" WHERE collecting AND NOT EXISTS (SELECT 1 FROM attempt WHERE {handled})"
    )
    db.execute(f"UPDATE attempt SET crashes = crashes + 1 WHERE EXISTS (SELECT 1 FROM provider_batch WHERE {handled})")
    db.execute("UPDATE provider_batch SET collecting = 0, handling = NULL WHERE collecting")
    return [row[1] for row in poison]


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
    pot_days.recount(db)
    db.execute(
        "INSERT INTO counter SELECT 'done', coalesce(max(done_no), 0) FROM task WHERE true"
        " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
    )


def crashed(task_id: str, times: int) -> Result:
    """Return the result of a task that was running each time the agent ended unexpectedly."""
    often = "once" if times == 1 else f"{times} times"
    message = f"the agent ended {often} while it ran this task: it crashed, was killed, or hung"
    hint = "see its journal (journalctl -u jada-agent), and change the task before it is sent again"
    return Result(id=task_id, state="failed", error=TaskError(code=CRASHED, message=message, hint=hint))
