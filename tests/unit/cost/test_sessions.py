"""The CLI's session logs: what is counted once, what is not counted, and that nothing is read twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farmhand.cost.figures import document
from farmhand.cost.money import pico
from farmhand.cost.sessions import Interactive, directories, interactive, read
from farmhand.cost.store import Store
from tests.unit.cost.ledgers import TABLE, new_store

START = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = new_store(tmp_path / "cost.db")
    yield opened
    opened.close()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "projects" / "p").mkdir(parents=True)
    return tmp_path / "projects"


def line(
    message: str | None = "m1",
    request: str | None = "r1",
    model: str = "claude-opus-5-5",
    *,
    hours: float = 0,
    **usage: int,
) -> dict[str, Any]:
    """One line of a log."""
    counts = {"input_tokens": 10, "output_tokens": 5, **usage}
    answer: dict[str, Any] = {"role": "assistant", "model": model, "usage": counts}
    entry: dict[str, Any] = {"type": "assistant", "timestamp": _time(hours), "message": answer}
    if message is not None:
        answer["id"] = message
    if request is not None:
        entry["requestId"] = request
    return entry


def _time(hours: float) -> str:
    return (START + timedelta(hours=hours)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write(path: Path, *lines: dict[str, Any] | str, mode: str = "w") -> None:
    """A log of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.writelines((entry if isinstance(entry, str) else json.dumps(entry)) + "\n" for entry in lines)


def estimate(store: Store, place: Path, since: float = 0) -> Interactive:
    """What the logs below `place` come to."""
    return interactive(store, TABLE, since, [place], read(store, [place]))


def test_lines_of_one_answer_are_counted_once_over_all_files(store: Store, logs: Path) -> None:
    write(logs / "p" / "one.jsonl", line(output_tokens=2), line(output_tokens=9), line(output_tokens=9))
    write(logs / "p" / "one" / "branched.jsonl", line(output_tokens=9), line("m2", "r2"))
    write(logs / "q" / "other.jsonl", line("m1", "r9"), line(None, "r1"), line(None, "r1"), line("m1", None))
    found = estimate(store, logs)
    # m1/r1 at its last, m2/r2, m1/r9, and three that cannot be told from one another.
    assert found.messages == 6
    assert found.days[0].output_tokens == 9 + 5 * 5
    assert found.estimate_pico == pico(Decimal(60 * 4 + 34 * 20) / 10**6)


def test_what_is_no_answer_is_left_out(store: Store, logs: Path) -> None:
    write(
        logs / "p" / "one.jsonl",
        {"type": "user", "timestamp": _time(0), "message": {"role": "user", "content": "usage"}},
        line(model="<synthetic>"),
        'no JSON with "usage"',
        '{"message": {"usage": {"input_tokens": "many"}}}',
        {**line(), "timestamp": "yesterday"},
        "",
    )
    (logs / "p" / "notes.txt").write_text(json.dumps(line()) + "\n")
    assert estimate(store, logs).messages == 0


def test_days_models_and_unknown_prices(store: Store, logs: Path) -> None:
    write(
        logs / "p" / "one.jsonl",
        line("m1", "r1", "claude-sonnet-5-5[1m]", cache_read_input_tokens=1_000_000),
        line("m2", "r2", "claude-sonnet-5-5", hours=-24 * 60, cache_read_input_tokens=1_000_000),
        line("m3", "r3", "claude-next"),
        line("m4", "r4", "claude-haiku-5-5", input_tokens=100_001, output_tokens=0),
        line("m5", "r5", "claude-haiku-5-5", input_tokens=100_000, output_tokens=0),
        {
            **line("m6", "r6", "claude-opus-5-5", hours=24),
            "message": {
                "id": "m6",
                "model": "claude-opus-5-5",
                "usage": {
                    "input_tokens": 0,
                    "output_tokens": 0,
                    "cache_creation_input_tokens": 100,
                    "cache_creation": {"ephemeral_1h_input_tokens": 60, "ephemeral_5m_input_tokens": 40},
                },
            },
        },
    )
    found = estimate(store, logs)
    assert found.unpriced == ["claude-next"]
    prices = {(day.day, day.model): day.estimate_pico for day in found.days}
    small = 10 * 2 * 10**6 + 5 * 10 * 10**6
    assert prices == {
        ("2026-09-21", "claude-sonnet-5-5"): 200 * 10**9 + small,
        ("2026-11-20", "claude-haiku-5-5"): 100_001 * 500_000 + 100_000 * 100_000,
        ("2026-11-20", "claude-next"): None,
        ("2026-11-20", "claude-sonnet-5-5"): 100 * 10**9 + small,
        ("2026-11-21", "claude-opus-5-5"): 40 * 5 * 10**6 + 60 * 8 * 10**6,
    }
    assert found.estimate_pico == sum(price or 0 for price in prices.values())
    assert estimate(store, logs, since=START.timestamp() + 3600).messages == 1
    assert "estimate" in document(found)["label"]


def test_a_log_is_read_on_where_it_was_left(store: Store, logs: Path) -> None:
    path = logs / "p" / "one.jsonl"
    write(path, line("m1", "r1"))
    assert estimate(store, logs).messages == 1
    with path.open("a") as file:
        file.write(json.dumps(line("m2", "r2"))[:30])
    assert estimate(store, logs).messages == 1
    with path.open("a") as file:
        file.write(json.dumps(line("m2", "r2"))[30:] + "\n")
    assert estimate(store, logs).messages == 2
    assert store.rows("SELECT offset FROM session_file") == [(path.stat().st_size,)]
    # Nothing is read that did not grow: not even the access time of a whole run shows in the figures.
    before = path.read_bytes()
    assert estimate(store, logs).messages == 2
    assert path.read_bytes() == before


def test_a_log_that_was_made_new_is_read_again_and_a_deleted_one_stays_counted(store: Store, logs: Path) -> None:
    path = logs / "p" / "one.jsonl"
    write(path, line("m1", "r1"), line("m2", "r2"))
    assert estimate(store, logs).messages == 2
    path.rename(path.with_suffix(".old"))
    write(path, line("m3", "r3"), line("m4", "r4"), line("m5", "r5"))
    assert estimate(store, logs).messages == 5
    path.unlink()
    assert estimate(store, logs).messages == 5


def test_what_cannot_be_read_is_named(store: Store, logs: Path) -> None:
    write(logs / "p" / "one.jsonl", line())
    (logs / "p" / "gone.jsonl").symlink_to(logs / "nowhere")
    found = estimate(store, logs)
    assert found.messages == 1
    assert found.unread == [f"{logs / 'p' / 'gone.jsonl'}: {os.strerror(2)}"]


def test_where_the_logs_are(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    assert directories({"HOME": str(home)}) == []
    for path in (home / ".claude", home / ".config/claude", other):
        (path / "projects").mkdir(parents=True)
    usual = [home / ".config/claude/projects", home / ".claude/projects"]
    assert directories({"HOME": str(home)}) == usual
    assert directories({"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}) == usual
    assert directories({"HOME": str(home), "CLAUDE_CONFIG_DIR": f"{other}, /nowhere"}) == [other / "projects"]
