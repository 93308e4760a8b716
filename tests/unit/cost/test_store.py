"""The merge: whatever comes how often and in whatever order, the sums are those of the rows."""

from __future__ import annotations

import random
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farmhand.core.errors import NotConfigured
from farmhand.cost import queries
from farmhand.cost import store as stores
from farmhand.cost.rows import BadLedger, FinishedTask, LedgerCharge, decode
from farmhand.cost.store import ContainerRuns, CostStore, StoreDamaged, default_path
from tests.unit.cost import ledgers
from tests.unit.cost.ledgers import charge, fill, new_store


def contents(store: CostStore) -> dict[str, list[tuple[object, ...]]]:
    """All rows, with ledgers as texts, so that what number they were given does not matter; sums that are kept fit."""
    for ledger, pico in store.rows("SELECT id, pico FROM ledger"):
        query = "SELECT coalesce(sum(pico), 0) FROM charge WHERE ledger = ?"
        assert store.rows(query, (ledger,)) == [(pico,)]
    uuids = dict(store.rows("SELECT id, uuid FROM ledger"))
    return {
        table: sorted((uuids[ledger], *row) for ledger, *row in store.rows(f"SELECT * FROM {table}"))  # noqa: S608
        for table in ("charge", "done")
    }


def parts_of(store: CostStore, by: str = "", since: int = 0) -> list[queries.Part]:
    """The parts since a day."""
    return queries.parts(queries.read(store, ledgers.TABLE, by).since(since), by)


Ledger = tuple[list[LedgerCharge], list[FinishedTask]]
farms = st.dictionaries(st.sampled_from(("u1", "u2", "u3")), st.tuples(ledgers.charges(), ledgers.finished()))


@settings(max_examples=25, deadline=None)
@given(farm=farms, seed=st.integers(0, 10_000), chunk=st.integers(1, 7))
def test_order_and_repetition_do_not_matter(farm: dict[str, Ledger], seed: int, chunk: int) -> None:
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        straight, mixed = (new_store(f"{directory}/{name}.db") for name in ("straight", "mixed"))
        for uuid, (rows, tasks) in farm.items():
            fill(straight, uuid, rows, tasks)
        patch.setattr(stores, "CHUNK", chunk)
        chance = random.Random(seed)  # noqa: S311
        calls = [(uuid, rows, tasks) for uuid, (rows, tasks) in farm.items()] * 2
        chance.shuffle(calls)
        for uuid, rows, tasks in calls:
            fill(mixed, uuid, chance.sample(rows, len(rows)), chance.sample(tasks, len(tasks)))
            fill(mixed, uuid, chance.sample(rows, len(rows) // 2))
        assert contents(mixed) == contents(straight)
        assert mixed.ledger("u1", "h")[1:] == straight.ledger("u1", "h")[1:]
        for store in (straight, mixed):
            store.close()


@settings(max_examples=25, deadline=None)
@given(farm=farms, since=st.integers(ledgers.TODAY - 61, ledgers.TODAY + 1))
def test_the_parts_are_the_whole_by_every_grouping(farm: dict[str, Ledger], since: int) -> None:
    with TemporaryDirectory() as directory:
        store = new_store(f"{directory}/cost.db")
        for number, (uuid, (rows, tasks)) in enumerate(farm.items()):
            fill(store, uuid, rows, tasks, host=f"farm{number % 2}")
        kept = [row for rows, _ in farm.values() for row in rows if row.created_at // ledgers.DAY >= since]
        done = [task for _, tasks in farm.values() for task in tasks if task.finished_at // ledgers.DAY >= since]
        for by in (*queries.KEYS, "label:team", "label:run", "label:nobody's"):
            parts = parts_of(store, by, since)
            assert len({part.key for part in parts}) == len(parts)
            assert sum(part.spent_pico for part in parts) == sum(row.cost_pico or 0 for row in kept)
            assert sum(part.requests for part in parts) == len(kept)
            assert sum(part.unpriced for part in parts) == sum(row.cost_usd is None for row in kept)
            assert sum(part.output_tokens for part in parts) == sum(row.output_tokens for row in kept)
            assert sum(part.tasks + part.refused for part in parts) == len(done)
            assert sum(part.refused for part in parts) == sum(task.error == "budget_shared" for task in done)
            failed = [task for task in done if task.state == "failed" and task.error != "budget_shared"]
            assert sum(part.failed for part in parts) == len(failed)
            assert sum(part.uncertain for part in parts) == sum(task.uncertain for task in done)
        priced = queries.price_groups(queries.read(store, ledgers.TABLE).since(since).spend, ledgers.TABLE)
        assert sum(group.usage.requests for group in priced) == len(kept)
        assert sum(group.pico or 0 for group in priced) == sum(row.cost_pico or 0 for row in kept)
        store.close()


def test_a_part_is_what_it_says(tmp_path: Path) -> None:
    store = new_store(tmp_path / "cost.db")
    fill(store, "u1", [charge(1, batch="b", labels={"team": "x", "run": "1"}), charge(2), charge(3, model="new")])
    fill(store, "u2", [charge(1, batch="b", at=ledgers.NOW - ledgers.DAY)], host="farm2")
    one = charge().cost_pico

    def keys(by: str) -> dict[str, int]:
        return {part.key: part.spent_pico for part in parts_of(store, by)}

    assert one is not None
    assert keys("model") == {"claude-haiku-5-5": 3 * one, "new": 0}
    assert keys("host") == {"farm1": 2 * one, "farm2": one}
    assert keys("batch") == {"b": 2 * one, "": one}
    assert keys("label") == {"": 2 * one, '{"run":"1","team":"x"}': one}
    assert keys("label:team") == {"": 2 * one, "x": one}
    assert list(keys("day")) == ["2026-11-23", "2026-11-24"]
    assert [(u.model, u.requests) for u in queries.unpriced(queries.read(store, ledgers.TABLE))] == [("new", 1)]
    store.close()


def test_a_rebuilt_host_is_a_ledger_of_its_own(tmp_path: Path) -> None:
    store = new_store(tmp_path / "cost.db")
    fill(store, "before", [charge(1), charge(2)])
    fill(store, "after", [charge(1)])
    assert parts_of(store, "host")[0].requests == 3
    assert store.ledger("after", "farm1")[1:] == (1, 0)
    store.close()


def test_a_failure_half_way_leaves_whole_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "CHUNK", 2)
    store = new_store(tmp_path / "cost.db")

    def lines() -> Iterator[LedgerCharge]:
        yield from (charge(no, batch=f"b{no}") for no in (1, 2, 3))
        raise ConnectionResetError

    number, _, _ = store.ledger("u1", "farm1")
    with pytest.raises(ConnectionResetError):
        store.merge(number, LedgerCharge, lines())
    assert store.ledger("u1", "farm1")[1] == 2
    store.merge(number, LedgerCharge, (charge(no, batch=f"b{no}") for no in (1, 2, 3)))
    contents(store)
    assert parts_of(store)[0].requests == 3
    store.close()


def test_another_process_that_opens_a_new_store_at_this_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(sqlite3.Connection):
        """SQLite refuses the switch to WAL twice without waiting, as it does while another process switches."""

        left = 2

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if "journal_mode" in sql and Refusing.left:
                Refusing.left -= 1
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
            return super().execute(sql, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **named, factory=Refusing))
    new_store(tmp_path / "cost.db").close()
    assert Refusing.left == 0


def test_two_at_once_merge_everything_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "CHUNK", 5)
    path = tmp_path / "cost.db"
    problems: list[BaseException] = []

    def merge() -> None:
        try:
            store = new_store(path)
            fill(store, "u1", [charge(no, batch=f"b{no % 7}") for no in range(1, 101)])
            store.close()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=merge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    store = new_store(path)
    assert parts_of(store)[0].requests == 100
    contents(store)
    store.close()


def test_figures_see_one_state_while_another_process_merges(tmp_path: Path) -> None:
    reader, writer = (new_store(tmp_path / "cost.db") for _ in range(2))
    fill(writer, "u1", [charge(1)])
    with reader.transaction("DEFERRED"):
        before = parts_of(reader, "host")
        fill(writer, "u2", [charge(1)], host="farm2")
        assert parts_of(reader, "host") == before
    assert [part.key for part in parts_of(reader, "host")] == ["farm1", "farm2"]
    for store in (reader, writer):
        store.close()


def test_the_file_is_private_and_a_broken_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "state" / "cost.db"
    new_store(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreDamaged, match="cannot be used: file is not a database"):
        new_store(path)
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreDamaged, match="version 99"):
        new_store(path)
    with pytest.raises(NotConfigured, match="cannot be opened"):
        new_store(tmp_path)


def test_a_store_of_an_older_form_is_begun_again_and_kept_beside(tmp_path: Path) -> None:
    path = tmp_path / "cost.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE charge (no INTEGER)")
        db.execute("INSERT INTO charge VALUES (7)")
        db.execute("PRAGMA user_version = 1")
    store = new_store(path)
    assert store.begun_again == tmp_path / "cost.db.v1"
    fill(store, "u1", [charge(1)])
    store.close()
    again = new_store(path)
    assert (again.begun_again, parts_of(again)[0].requests) == (None, 1)
    again.close()
    assert stat.S_IMODE((tmp_path / "cost.db.v1").stat().st_mode) == 0o600
    with sqlite3.connect(tmp_path / "cost.db.v1") as db:
        assert db.execute("SELECT no FROM charge").fetchall() == [(7,)]


def test_the_store_is_in_the_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "farmhand" / "cost.db"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".local/state/farmhand/cost.db"


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b'{"charge_id":1}',
        b'{"charge_id":-1,"model":"m","engine":"api","created_at":1}',
        b'{"charge_id":1,"model":"m","engine":"api","created_at":1,"input_tokens":-5}',
        b'{"charge_id":1,"model":"m","engine":"api","created_at":1,"cost_usd":-0.1}',
        b'{"charge_id":1,"model":"m","engine":"api","created_at":1,"cost_usd":"NaN"}',
        b'{"charge_id":1,"model":"m","engine":"api","created_at":1e300}',
        b"\xff",
    ],
)
def test_a_line_that_is_none_of_a_ledger_s_is_refused(line: bytes) -> None:
    with pytest.raises(BadLedger):
        decode(LedgerCharge, line)
    with pytest.raises(BadLedger):
        decode(FinishedTask, line)


def test_amounts_on_the_wire_are_read_exactly() -> None:
    line = b'{"charge_id":1,"model":"m","engine":"api","created_at":1.5,"cost_usd":%s,"from_a_newer_agent":1}'
    assert decode(LedgerCharge, line % b"123456.123456789012").cost_pico == 123456123456789012
    assert decode(LedgerCharge, line % b'"0.000000000001"').cost_pico == 1
    assert decode(LedgerCharge, line % b"1.18e-05").cost_pico == 11_800_000
    assert decode(LedgerCharge, line % b"null").cost_pico is None


def test_a_store_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", f"{tmp_path}/:memory:"):
        with pytest.raises(NotConfigured, match=":memory: is no file"):
            new_store(name)
    assert list(tmp_path.iterdir()) == []


def test_a_store_from_before_containers_gets_their_tables_and_keeps_its_rows(tmp_path: Path) -> None:
    store = new_store(tmp_path / "cost.db")
    fill(store, "u1", [charge(1)])
    for name in ("object", "container"):
        store.db.execute(f"DROP TABLE {name}")
    store.close()
    again = new_store(tmp_path / "cost.db")
    assert (again.begun_again, parts_of(again)[0].requests) == (None, 1)
    again.ran("s3://b/k", "aws-prod", "b1", [ContainerRuns(1.0, 2.0, 1, 60, 5)], settled=False)
    again.ran("s3://b/k", "aws-prod", "b1", [ContainerRuns(1.0, 3.0, 2, 120, 9)], settled=True)
    assert again.rows("SELECT runs, pico FROM container") == [(2, 9)]
    assert (again.was_read("s3://b/"), again.was_read("s3://c/")) == ({"s3://b/k"}, set())
    again.close()
