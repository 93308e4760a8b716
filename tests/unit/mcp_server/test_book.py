"""The money of the MCP servers: held before it is spent, the same for all servers of a day."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from farmhand.core.errors import FarmhandError
from farmhand.core.money import PICO_PER_USD
from farmhand.core.settings import Settings
from farmhand.mcp_server import book as module
from farmhand.mcp_server.book import Book, BookHeld, SessionMoneySpent, in_turn

CONF = Settings(mcp_max_usd=5.0, mcp_session_max_usd=2.0, config_file="/c/config.toml")
USD = PICO_PER_USD


def reserve(book: Book, job_id: str, usd: float, conf: Settings = CONF, least: int = 1) -> int:
    return anyio.run(in_turn, nobody, book.reserve, job_id, "task", round(usd * USD), least, conf, "label", 1)


async def nobody(_: str) -> None: ...


def test_what_is_held_is_no_more_to_spend_and_the_real_cost_takes_its_place(tmp_path: Path) -> None:
    book = Book(tmp_path, "one")
    assert reserve(book, "a", 1.5) == 1.5 * USD
    assert reserve(book, "b", 1.5) == 0.5 * USD, "what is left"
    with pytest.raises(SessionMoneySpent) as spent:
        reserve(book, "c", 0.1)
    assert "session: US$ 0.00 spent of US$ 2.00, US$ 2.00 held" in spent.value.message
    assert "nothing was sent" in spent.value.message
    assert "mcp_session_max_usd in /c/config.toml" in spent.value.hint
    assert spent.value.exit_code == 5
    book.settle("a", USD // 10)
    assert reserve(book, "c", 5) == 1.4 * USD
    book.settle("b", None)
    assert book.rooms(CONF)[1].held == 1.9 * USD, "a cost that is not known stays spent"
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o600


def test_a_day_is_of_all_sessions_and_over_at_midnight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        amount = 2.0 if number < 2 else 1.0
        assert reserve(Book(tmp_path, f"s{number}"), f"j{number}", 2) == amount * USD
    with pytest.raises(SessionMoneySpent, match="for this day"):
        reserve(Book(tmp_path, "s3"), "j3", 0.1)
    tomorrow = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    assert reserve(Book(tmp_path, "s3"), "j3", 0.1) == 0.1 * USD


def test_no_limit_a_smaller_one_at_once_and_more_that_was_allowed(tmp_path: Path) -> None:
    book = Book(tmp_path, "one")
    free = CONF._replace(mcp_max_usd=0.0, mcp_session_max_usd=0.0)
    assert reserve(book, "a", 100, free) == 100 * USD
    with pytest.raises(SessionMoneySpent):
        reserve(book, "b", 1)
    for scope in ("day", "session"):
        book.allow(scope, 100 * USD)
    assert reserve(book, "b", 1) == USD
    with pytest.raises(SessionMoneySpent):
        reserve(Book(tmp_path, "two"), "c", 4.5, least=4 * USD)


def _greedy(directory: Path, number: int) -> int:
    book, got = Book(directory, "same"), 0
    for attempt in range(10):
        try:
            got += reserve(book, f"{number}-{attempt}", 0.3)
        except SessionMoneySpent:
            break
    return got


def test_many_at_once_never_hold_more_than_there_is(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        got = pool.starmap(_greedy, [(tmp_path, number) for number in range(4)])
    assert sum(got) == 2 * USD


def test_jobs_are_found_by_any_session_and_forgotten_after_a_month(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve(Book(tmp_path, "one"), "a", 0.1)
    other = Book(tmp_path, "two")
    entry = other.find("a")
    assert entry is not None
    assert (entry.kind, entry.label, entry.state) == ("task", "label", "open")
    assert [one.id for one in other.last(5)] == ["a"]
    assert other.forget() == []
    later = time.time() + module.KEEP_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert other.forget() == ["a"]
    assert other.find("a") is None


def test_a_full_disk_is_said_and_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(tmp_path, "one")
    reserve(book, "a", 0.1)
    connect = sqlite3.connect

    def full(*args: Any, **more: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **more)
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        return db

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(FarmhandError, match="disk is full"):
        book.reserve("b", "task", USD, 1, CONF, "x" * 10_000, 1)
    assert book.rooms(CONF)[1].held == 0.1 * USD


def test_a_call_says_whom_it_waits_for_and_in_the_end_that_nothing_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.1)
    book, told = Book(tmp_path, "one"), []

    async def tell(what: str) -> None:
        told.append(what)

    reserve(book, "a", 0.1)
    with closing(sqlite3.connect(book.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BookHeld, match=f"another process holds the book .*{book.path}") as held:
            anyio.run(in_turn, tell, book.find, "a")
    assert "nothing is sent" in held.value.hint
    assert {*told} == {f"waiting: {held.value.message}"}
    assert reserve(book, "b", 0.1) == 0.1 * USD
