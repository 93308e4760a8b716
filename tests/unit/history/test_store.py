from __future__ import annotations

import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.history import store as history
from farmhand.history.store import CopyUnusable, HistoryStore, TaskFilter

NOW = 1_790_000_000.0
FARMS = {"farm1": ""}
EVERYTHING = TaskFilter()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HistoryStore]:
    monkeypatch.setattr(time, "time", lambda: NOW)
    opened = HistoryStore(tmp_path / "state" / "history.db")
    yield opened
    opened.close()


def task(name: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """A finished task as on the wire."""
    at = NOW - 10_000 + number
    about = {"id": name, "state": "succeeded", "created_at": at, "finished_at": at + 1, "content": "kept", "batch": ""}
    return {
        **about,
        "text": f"answer of {name}",
        "labels": {},
        "spec": {"id": name, "prompt": f"prompt of {name}"},
        **more,
    }


def page(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    kept = {"ledger": "one", "kept_since": 0.0, "retention_days": 30.0, "history_days": 400.0, "next": len(tasks)}
    return kept | {"tasks": list(tasks), "unfinished": []} | more


def ids(store: HistoryStore, wanted: TaskFilter = EVERYTHING, limit: int = 100) -> list[str]:
    return [one.id for one in store.list(wanted, FARMS, limit)]


def test_unfinished_tasks_are_those_of_the_last_copy(store: HistoryStore) -> None:
    waiting = [task(name, 5, state="queued", finished_at=None) for name in ("a", "b")]
    store.add("", "farm1", page(task("x"), unfinished=waiting), last=True)
    assert ids(store) == ["b", "a", "x"]
    assert store.next_of("", "farm1") == ("one", 1)
    store.add("", "farm1", page(task("a", 5)), last=True)
    assert [(one.id, one.result["state"]) for one in store.list(EVERYTHING, FARMS, 9)] == [
        ("a", "succeeded"), ("x", "succeeded"),
    ]  # fmt: skip
    # A page that is not the last one says nothing of them, and a task that was asked for is no copy of its host.
    store.add("", "farm1", page(task("y"), unfinished=[], next=9) | {"more": True}, last=False)
    assert store.copies("") == {"farm1": NOW}


def test_no_key_gets_into_the_file_whatever_a_host_says(store: HistoryStore) -> None:
    key = "sk-ant-test-history-0000000000"
    evil = task(
        "a", text=key, spec={"prompt": key, "system": key}, labels={"n": key}, error={"code": "x", "message": key}
    )
    store.add("", "farm1", page(evil), last=True)
    assert key.encode() not in store.path.read_bytes()
    assert "redacted" in store.list(EVERYTHING, FARMS, 1)[0].result["text"]


def test_it_is_private_and_one_that_is_damaged_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "history.db"
    HistoryStore(path).close()
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    path.write_bytes(b"no database at all" * 100)
    path.chmod(0o644)
    HistoryStore(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    HistoryStore(path).close()
    (tmp_path / "dir").mkdir()
    with pytest.raises(NotConfigured, match="cannot be used"):
        HistoryStore(tmp_path / "dir")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotConfigured, match="cannot be used"):
        HistoryStore(path)
    assert not (tmp_path / "elsewhere").exists()


def test_one_whose_damage_shows_later_is_deleted_and_the_next_command_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    store = HistoryStore(path)
    store.add("", "farm1", page(*(task(f"t{number}", number) for number in range(200))), last=True)
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))  # its first page is as it was
    store = HistoryStore(path)
    with pytest.raises(NotConfigured, match=r"was damaged .* is deleted"):
        store.list(EVERYTHING, FARMS, 100)
    store.close()
    anew = HistoryStore(path)
    assert ids(anew) == []
    anew.close()


def test_content_goes_when_the_host_deletes_it_and_by_its_days_while_the_host_is_down(
    store: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add("", "farm1", page(task("old", 0), task("new", 100)), last=True)
    store.add("", "farm1", page(kept_since=NOW - 9_950), last=True)
    old, new = (store.find(name, FARMS)[0] for name in ("old", "new"))
    assert (old.spec, old.result.get("text"), old.result["content"]) == (None, None, "gone")
    assert new.spec is not None
    assert b"prompt of old" not in store.path.read_bytes()
    monkeypatch.setattr(time, "time", lambda: NOW + 31 * 86400)
    store.expire()
    assert store.find("new", FARMS)[0].spec is None
    assert b"prompt of" not in store.path.read_bytes()
    monkeypatch.setattr(time, "time", lambda: NOW + 401 * 86400)
    store.expire()
    assert ids(store) == []


def test_only_the_last_tasks_of_a_ledger_are_kept(store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    store.add("", "farm1", page(*(task(f"t{number}", number) for number in range(5))), last=True)
    store.add("", "farm2", page(task("other"), ledger="two"), last=True)
    assert ids(store) == ["t4", "t3", "t2"]
    assert [one.id for one in store.list(EVERYTHING, {"farm2": ""}, 9)] == ["other"]
    assert store.list(EVERYTHING, {"farm1": "other hosts file"}, 9) == []
    assert store.list(EVERYTHING, {}, 9) == []


def test_ids_are_found_by_their_beginning(store: HistoryStore) -> None:
    store.add("", "farm1", page(*(task(name) for name in ("a", "a-1", "a_2", "aZ", "b.%"))), last=True)
    assert [one.id for one in store.find("a", FARMS)] == ["a"]
    assert {one.id for one in store.find("a-", FARMS)} == {"a-1"}
    assert [one.id for one in store.find("b.", FARMS)] == ["b.%"]
    for nothing in ("%", "_", "A", "a'", "c"):
        assert store.find(nothing, FARMS) == []


def test_thousands_of_tasks_are_found_by_an_index(store: HistoryStore) -> None:
    tasks = [
        task(f"t{number:05}", number, batch=f"b{number % 50}", labels={"n": str(number)}) for number in range(3000)
    ]
    store.add("", "farm1", page(*tasks), last=True)
    asked: list[str] = []
    store.db.set_trace_callback(asked.append)
    assert ids(store, limit=2) == ["t02999", "t02998"]
    assert ids(store, TaskFilter(batch="b7"), 1) == ["t02957"]
    assert ids(store, TaskFilter(labels=(("n", "12"),))) == ["t00012"]
    assert ids(store, TaskFilter(failed=True)) == []
    assert ids(store, TaskFilter(grep="OF T01234")) == ["t01234"]
    assert [one.id for one in store.find("t0123", FARMS)][:1] == ["t01230"]
    store.db.set_trace_callback(None)
    for query in asked:
        plan = [row["detail"] for row in store.db.execute(f"EXPLAIN QUERY PLAN {query}")]
        assert not [step for step in plan if step.startswith("SCAN task")], (query, plan)


def test_of_a_line_that_waited_for_room_only_the_last_attempt_is_listed(store: HistoryStore) -> None:
    refused = {"code": "budget", "message": "the budget of the batch b has no room: …", "hint": ""}
    held = {"state": "failed", "batch": "b", "error": refused, "usage": {"requests": 0}}
    tasks = [task("in-1", 1, **held), task("in-1.r2", 2, **held), task("in-1.r10", 3, batch="b")]
    tasks += [task("in-2", 4, **held), task("in-2.r2", 5, **held)]
    # A line that failed and was run again did run each time, and so did a task that its own budget ended.
    tasks += [task("in-3", 6, state="failed", batch="b"), task("in-3.r2", 7, batch="b")]
    own = {"code": "budget", "message": "the budget of the task in-4 has no room", "hint": ""}
    tasks += [task("in-4", 8, state="failed", batch="b", error=own), task("in-4.r2", 9, batch="b")]
    tasks += [task("other", 10, **{**held, "batch": ""}), task("other.r2", 11)]
    store.add("", "farm1", page(*tasks), last=True)
    wanted = ["other.r2", "other", "in-4.r2", "in-4", "in-3.r2", "in-3", "in-2.r2", "in-1.r10"]
    assert ids(store) == wanted
    assert ids(store, TaskFilter(failed=True)) == ["other", "in-4", "in-3", "in-2.r2"]
    [first] = store.find("in-1", FARMS)
    assert [one.id for one in store.attempts(first, FARMS)] == ["in-1.r10", "in-1.r2", "in-1"]
    [alone] = store.find("other", FARMS)
    assert store.attempts(alone, FARMS) == [alone]


def test_a_task_of_its_own_that_went_on_at_a_lower_price_is_listed_once(store: HistoryStore) -> None:
    own = {"code": "budget", "message": "the budget of the task one has no room", "hint": ""}
    held = {"state": "failed", "error": own, "usage": {"requests": 0}}
    # What had begun, or succeeded, is another task of that name.
    begun = task("two", 3, **{**held, "usage": {"requests": 1}})
    tasks = [task("one", 1, **held), task("one.r1", 2), begun, task("two.r1", 4), task("six", 5), task("six.r1", 6)]
    store.add("", "farm1", page(*tasks), last=True)
    assert ids(store) == ["six.r1", "six", "two.r1", "two", "one.r1"]
    for start, attempts in (
        ("one", ["one.r1", "one"]),
        ("one.r1", ["one.r1", "one"]),
        ("two", ["two"]),
        ("six", ["six"]),
    ):
        [found] = store.find(start, FARMS)
        assert [one.id for one in store.attempts(found, FARMS)] == attempts


def test_a_copy_that_another_process_holds_is_said_to_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_BUSY_S", 0.1)
    HistoryStore(tmp_path / "history.db").close()
    with closing(sqlite3.connect(tmp_path / "history.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CopyUnusable, match="another process holds it") as held:
            HistoryStore(tmp_path / "history.db")
    assert held.value.hint == "try again once that has ended"
