from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.schema import SCHEMA_VERSION, migrate
from farmhand.core.errors import FarmhandError
from farmhand.core.task import Result, Task

VERSION_1 = Path(__file__).resolve().parents[2] / "data" / "ledger-1.sql"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of version 1 with tasks in every state."""
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1.read_text(encoding="utf-8"))
    db.close()
    return path


def schema(path: Path) -> set[tuple[str, str]]:
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
    db.close()
    return set(rows)


async def test_every_task_of_version_1_survives(old: Path) -> None:
    ledger = Ledger(old)
    states = {one.id: one.state for one in ledger.results(batch=None, state=None, after=None, limit=100).results}
    assert states == {
        "done": "succeeded", "structured": "succeeded", "failed": "failed", "cancelled": "cancelled",
        "queued": "queued", "waiting": "awaiting_key", "running": "running", "twice": "succeeded", "crashed": "queued",
    }  # fmt: skip
    done = ledger.result("done")
    assert (done.text, done.cost_usd, done.labels) == ("an answer ✓", Decimal("0.00001825"), {"a": "b"})
    assert (done.usage.input_tokens, done.usage.cache_read_input_tokens, done.usage.requests) == (12, 5, 1)
    assert ledger.result("structured").structured == {"n": [1]}
    failed = ledger.result("failed")
    assert failed.error is not None
    assert (failed.error.code, failed.cost_usd) == ("refusal", None)
    assert (ledger.result("twice").attempts, ledger.result("twice").cost_usd) == (2, Decimal("0.0000365"))
    assert ledger.result("crashed").uncertain == 1
    assert ledger.task("done") == Task(
        id="done", prompt="prompt of done", batch="b1", labels={"a": "b"}, work_class="sorting"
    )
    ledger.close()


async def test_sums_and_orders_are_made_from_what_version_1_had(old: Path) -> None:
    ledger = Ledger(old)
    assert [line["id"] for line in ledger.finished(0, 9)] == ["structured", "done", "failed", "cancelled", "twice"]
    assert ledger.last_done() == 5
    assert ledger.finished(0, 9)[1]["work_class"] == "sorting"
    batch = ledger.batch("b1")
    assert (batch.queued, batch.succeeded, batch.last_done) == (1, 3, 5)
    charges = ledger.charges(0, 99)
    assert sum(charge["cost_usd"] for charge in charges if charge["cost_usd"]) == ledger.totals(0).cost_usd
    assert [charge["task"] for charge in charges] == ["structured", "done", "failed", "twice"]
    counted = ledger._db.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall()
    assert {row[0]: row[1] for row in counted} == {name: n for name, n in ledger.counts().items() if n}
    ledger.close()


async def test_unfinished_tasks_of_version_1_go_on(old: Path) -> None:
    ledger = Ledger(old)
    assert await ledger.recover() == 4
    assert await ledger.resume("new") == 4
    assert [one.id for one in ledger.line("api", 9)] == ["queued", "waiting", "crashed"]
    assert [one.id for one in ledger.line("cli", 9)] == ["running"]
    running = ledger.known("running").seq
    assert await ledger.start(running, "new") == 2
    await ledger.end(running, None, Result(id="running", state="succeeded"))
    assert ledger.last_done() == 6
    states = await ledger.submit([Task(id="queued", prompt="prompt of queued", batch="b1")], "queued", "new")
    assert states == {"queued": "queued"}
    ledger.close()


def test_an_old_file_ends_up_like_a_new_one(old: Path, tmp_path: Path) -> None:
    Ledger(old).close()
    Ledger(tmp_path / "new.db").close()
    assert schema(old) == schema(tmp_path / "new.db")
    with sqlite3.connect(old) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
        assert db.execute("PRAGMA auto_vacuum").fetchone()[0] == 2
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.close()
    before = old.read_bytes()
    Ledger(old).close()
    assert old.read_bytes() == before


async def test_a_dump_is_taken_for_what_it_was(old: Path, tmp_path: Path) -> None:
    """A dump does not carry the version."""
    ledger = Ledger(old)
    ledger.close()
    rescued = tmp_path / "rescued.db"
    with sqlite3.connect(old) as source, sqlite3.connect(rescued) as target:
        target.executescript("\n".join(source.iterdump()))
        assert target.execute("PRAGMA user_version").fetchone()[0] == 0
    source.close()
    target.close()
    ledger = Ledger(rescued)
    await ledger.recount()
    assert ledger.result("done").text == "an answer ✓"
    assert ledger.last_done() == 5
    assert schema(rescued) == schema(old)
    ledger.close()


def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = schema(old)
    monkeypatch.setattr("farmhand.agent.store.schema.STEPS", ("", "DROP TABLE attempt; SELECT nonsense;"))
    db = sqlite3.connect(old, isolation_level=None)
    with pytest.raises(sqlite3.Error):
        migrate(db, old)
    db.close()
    assert schema(old) == before


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(FarmhandError, match="schema version 7"):
        Ledger(path)


async def test_every_ledger_has_a_name_of_its_own_and_keeps_it(old: Path, tmp_path: Path) -> None:
    names = []
    for path in (old, old, tmp_path / "other.db"):
        ledger = Ledger(path)
        names.append(ledger.ledger_id())
        ledger.close()
    assert names[0] == names[1] != names[2]
    assert all(len(name) == 32 for name in names)
