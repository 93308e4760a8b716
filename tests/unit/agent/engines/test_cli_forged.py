"""Structured answers that a sandboxed task forges: they cost the agent neither its event loop nor a second attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farmhand.agent.config import Config
from farmhand.agent.engines import EngineError
from farmhand.agent.engines.cli import CliEngine
from farmhand.core.schemas import POOL
from farmhand.core.task import Result, Task, Usage
from farmhand.meter.grants import Charge, Grant, Grants, Key


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(POOL, "limit_s", 1.0)
    yield
    POOL.rest(0)


async def judged(directory: Path, schema: dict[str, Any], forged: bytes) -> tuple[Result, int]:
    """What the engine makes of `forged`, and how often the event loop came round meanwhile."""

    async def sandbox(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"type":"result","result":"","is_error":false,"num_turns":1,"structured_output":%s}\n' % forged)
        writer.write(b'{"type":"farmhand.exit","rc":0,"signal":0,"oom":false,"stderr":""}\n')
        writer.close()

    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    turning = asyncio.create_task(turn())
    try:
        async with await asyncio.start_unix_server(sandbox, directory / "task.sock"):
            engine = CliEngine(Config(runtime_dir=str(directory)), Grants())
            grant = Grant(task_id="one", key=Key("sk-ant-test-judge-00000000"), model="claude-haiku-5-5")
            grant.charges.append(Charge(Usage(input_tokens=1, output_tokens=1, requests=1), "req_1"))
            task = Task(id="one", prompt="p", tools=("Bash",), schema=schema)
            return await engine.run(task, grant, lambda _text: None, 60), turns
    finally:
        turning.cancel()
        judged.turns = turns  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("schema", "forged", "code"),
    [
        ({"type": "string", "pattern": "^(a+)+$"}, {"answer": "a" * 40 + "!"}, "schema_limit"),
        ({"type": "string", "pattern": "(x|x?)*$"}, {"answer": "x" * 60 + "!"}, "schema_limit"),
        ({"type": "object", "patternProperties": {"^(a+)+$": False}}, {"a" * 40 + "!": 1}, "schema_limit"),
        ({"type": "object"}, {"a": [{}] * 1_300_000}, "no_answer"),
        ({"type": "object"}, {"a": "x" * 1_500_000}, "no_answer"),
        ({"type": "object"}, {"a": "x" * 5_000_000}, "no_answer"),
    ],
    ids=["nested", "alternation", "property names", "objects", "text", "more text"],
)
async def test_a_forged_answer_ends_the_task_at_once(
    tmp_path: Path, schema: dict[str, Any], forged: Any, code: str
) -> None:
    with pytest.raises(EngineError) as error:
        await judged(tmp_path, schema, msgspec.json.encode(forged))
    assert (error.value.code, error.value.retryable) == (code, False)
    if code == "schema_limit":
        assert error.value.hint
        assert judged.turns > 20  # type: ignore[attr-defined]


async def test_thousands_of_objects_that_have_to_be_unique_are_an_answer(tmp_path: Path) -> None:
    schema = {"type": "array", "uniqueItems": True, "items": {"type": "object"}}
    items = [{"name": f"n{number}"} for number in range(6000)]
    # The limit of these tests is for what takes for ever.
    POOL.limit_s = 10.0
    answer, _ = await judged(tmp_path, schema, msgspec.json.encode({"answer": items}))
    assert answer.structured == items
