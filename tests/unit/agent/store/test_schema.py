from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from farmhand.agent.store import schema
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.records import USAGE
from farmhand.core.errors import FarmhandError
from farmhand.core.task import Result, Task

#: A second version of the file, as there may be one some day.
STEPS = (
    *schema.STEPS,
    "ALTER TABLE task ADD COLUMN mood TEXT NOT NULL DEFAULT 'good'; CREATE INDEX moods ON task (mood);",
)


@pytest.fixture
async def old(tmp_path: Path) -> Path:
    """A file of version 1 with a finished task and one that waits."""
    ledger = Ledger(tmp_path / "ledger.db")
    await ledger.submit([Task(id=name, prompt="hello", batch="b") for name in ("done", "queued")], "queued", "fp")
    await ledger.start(1, "fp")
    await ledger.end(1, None, Result(id="done", state="succeeded", text="an answer ✓"))
    ledger.close()
    return ledger.path


@pytest.fixture
def two_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "STEPS", STEPS)


def dumped(path: Path, target: Path) -> Path:
    """What `.dump` rescues of a file: everything but its version and how it grows."""
    with sqlite3.connect(path) as source, sqlite3.connect(target) as rescued:
        rescued.executescript("\n".join(source.iterdump()))
        assert rescued.execute("PRAGMA user_version").fetchone()[0] == 0
    source.close()
    rescued.close()
    return target


def objects(path: Path) -> set[tuple[str, str]]:
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
    db.close()
    return set(rows)


def sound(path: Path, version: int) -> None:
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == version
        assert db.execute("PRAGMA auto_vacuum").fetchone()[0] == 2
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.close()


def test_a_file_of_this_version_is_left_as_it_is(old: Path) -> None:
    sound(old, 1)
    before = old.read_bytes()
    Ledger(old).close()
    assert old.read_bytes() == before


async def test_an_old_file_ends_up_like_a_new_one_and_keeps_its_tasks(
    old: Path, tmp_path: Path, two_versions: None
) -> None:
    ledger = Ledger(old)
    assert ledger.result("done").text == "an answer ✓"
    assert [one.id for one in ledger.line("api", 9)] == ["queued"]
    await ledger.submit([Task(id="later", prompt="hello")], "queued", "fp")
    assert ledger.rows("SELECT DISTINCT mood FROM task")[0][0] == "good"
    ledger.close()
    Ledger(tmp_path / "new.db").close()
    assert objects(old) == objects(tmp_path / "new.db")
    sound(old, 2)


@pytest.mark.parametrize("newer", [False, True])
async def test_a_dump_is_taken_for_what_it_was(
    old: Path, tmp_path: Path, newer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if newer:
        monkeypatch.setattr(schema, "STEPS", STEPS)
        Ledger(old).close()
    rescued = dumped(old, tmp_path / "rescued.db")
    monkeypatch.setattr(schema, "STEPS", STEPS)
    ledger = Ledger(rescued)
    await ledger.recount()
    assert (ledger.result("done").text, ledger.batch("b").last_done) == ("an answer ✓", 1)
    ledger.close()
    sound(rescued, 2)
    Ledger(old).close()
    assert objects(rescued) == objects(old)


def test_a_step_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = objects(old)
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, "DROP TABLE attempt; SELECT nonsense;"))
    with pytest.raises(sqlite3.Error):
        Ledger(old)
    assert objects(old) == before


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(FarmhandError, match="schema version 7"):
        Ledger(path)


def test_every_ledger_has_a_name_of_its_own_and_keeps_it(old: Path, tmp_path: Path) -> None:
    names = []
    for path in (old, old, tmp_path / "other.db"):
        ledger = Ledger(path)
        names.append(ledger.ledger_id())
        ledger.close()
    assert names[0] == names[1] != names[2]
    assert all(len(name) == 32 for name in names)


def test_every_count_of_the_wire_has_its_column(old: Path) -> None:
    with sqlite3.connect(old) as db:
        for table in ("task", "charge"):
            assert {*USAGE} <= {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
    db.close()
