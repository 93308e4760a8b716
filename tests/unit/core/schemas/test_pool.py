"""Checks in processes of their own: what takes for ever is ended, what breaks down breaks nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.schemas import Pool, Unchecked, problem, too_large
from farmhand.core.schemas.pool import MAX_SCHEMA

EVIL = {"type": "string", "pattern": "^(a+)+$"}
#: Takes for ever by EVIL.
LONG = "a" * 40 + "!"


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"items": value}
    return value


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(limit_s=1.0)
    yield made
    made.rest(0)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_worker_is_started_when_there_is_something_to_check_used_again_and_ended(pool: Pool) -> None:
    assert pool.pids == []
    assert pool.check({"type": "integer"}, answer=3) == ("", "")
    [first] = pool.pids
    assert pool.check({"type": "integer"}, answer="3").code == "no_answer"
    assert pool.check({"type": "nothing"}).code == "invalid_schema"
    assert pool.pids == [first]
    pool.rest(0)
    assert pool.pids == []
    assert gone(first)


def test_what_takes_for_ever_is_ended_and_the_next_one_gets_another_worker(pool: Pool) -> None:
    pool.check({}, answer=1)
    [first] = pool.pids
    with pytest.raises(Unchecked, match="longer than 1 s") as unchecked:
        pool.check(EVIL, answer=LONG)
    assert unchecked.value.too_hard
    assert gone(first)
    assert pool.check(EVIL, answer="aaa") == ("", "")


def test_what_takes_all_memory_ends_nobody_else(pool: Pool) -> None:
    pool.limit_s = 30
    with pytest.raises(Unchecked) as unchecked:
        pool.check({}, answer=[[]] * 12_000_000)
    assert unchecked.value.too_hard
    assert pool.check({}, answer=1) == ("", "")


def test_a_worker_that_was_killed_meanwhile_is_replaced(pool: Pool) -> None:
    pool.check({}, answer=1)
    os.kill(pool.pids[0], signal.SIGKILL)
    assert pool.check({"type": "null"}, answer=1).code == "no_answer"


def test_a_worker_ends_by_itself_where_nobody_else_ends_it(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.limit_s = -4.0  # the worker has five seconds more
    asked: list[bytes] = []

    def ask(worker: Any, request: bytes, _limit_s: float) -> bytes:
        asked.append(request)
        answer: bytes = worker._exchange(request + b"\n", 20)
        return answer

    monkeypatch.setattr("farmhand.core.schemas.pool._Worker.ask", ask)
    with pytest.raises(Unchecked, match="breaks down"):
        pool.check(EVIL, answer=LONG)
    assert len(asked) == 2


def test_no_worker_to_be_had(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farmhand.core.schemas.pool._ARGV", ("/nonexistent/python",))
    with pytest.raises(Unchecked, match="No such file") as unchecked:
        pool.check({})
    assert not unchecked.value.too_hard


def test_a_worker_has_neither_files_nor_environment_of_ours(pool: Pool, tmp_path: Path) -> None:
    with (tmp_path / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        pool.check({}, answer=1)
        [pid] = pool.pids
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    names = {line.partition(b"=")[0] for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if line}
    assert names <= {b"PATH", b"LANG", b"PYTHONDONTWRITEBYTECODE"}


async def test_the_event_loop_is_free_meanwhile_and_two_go_on_at_once(pool: Pool) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    ends = await asyncio.gather(
        *(pool.checked(EVIL, answer=LONG) for _ in range(2)), pool.checked({}, answer=1), return_exceptions=True
    )
    ticking.cancel()
    assert [type(end) for end in ends[:2]] == [Unchecked, Unchecked]
    assert ends[2] == ("", "")
    assert ticks > 20


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"description": "x" * MAX_SCHEMA}, "the limit is"),
        ({"properties": {f"p{number}": {} for number in range(60_000)}}, "the limit is"),
        (deep(100_000), "nested too deeply"),
        (deep(400), "nested too deeply"),
        ({"type": "nothing"}, "not a JSON Schema"),
    ],
    ids=["long", "many", "deep", "deeper than is checked", "none"],
)
def test_schemas_that_are_not_taken(schema: Any, says: str) -> None:
    assert says in problem(schema)


def test_a_schema_of_a_usual_size_is() -> None:
    schema = {"properties": {f"p{number}": {"type": "string", "maxLength": 9} for number in range(500)}}
    assert not too_large(schema)
    assert problem(schema) == ""


def test_a_schema_that_cannot_be_checked_in_time_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farmhand.core.schemas.pool.POOL", Pool(limit_s=0.0))
    assert "cannot be checked: it takes longer" in problem({"title": "so that no cache has it"})
