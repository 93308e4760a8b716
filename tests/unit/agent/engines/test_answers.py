"""Checking an answer against its schema, where the schema means harm."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from farmhand.agent.engines import EngineError
from farmhand.agent.engines.api import check_answer
from farmhand.core.request_body import as_object


async def test_a_schema_fetches_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        with pytest.raises(EngineError) as error:
            await check_answer({"$ref": f"http://127.0.0.1:{port}/schema"}, "x")
        assert error.value.code == "invalid_schema"
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("schema", [{"$ref": "file:///etc/hostname"}, {"$ref": "#"}, {"$ref": "#/$defs/none"}])
async def test_a_schema_that_leads_nowhere_is_an_error_of_its_own(schema: dict[str, Any]) -> None:
    with pytest.raises(EngineError) as error:
        await check_answer(schema, "x")
    assert error.value.code == "invalid_schema"


async def test_references_inside_the_schema_work() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}
    assert await check_answer(schema, 3) == 3


@pytest.mark.parametrize("answer", [{"n": "3"}, {}, [], None])
async def test_an_answer_that_misses_the_schema_is_none_and_worth_another_attempt(answer: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    with pytest.raises(EngineError) as error:
        await check_answer(schema, answer)
    assert (error.value.code, error.value.retryable) == ("no_answer", True)
    assert "\n" not in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"type": "object", "properties": {"answer": {}}}, {"answer": 1}),
        ({"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}}, [1, 2]),
        ({"enum": ["a", "b"]}, "a"),
    ],
)
async def test_any_schema_can_be_the_input_of_a_tool(schema: dict[str, Any], answer: Any) -> None:
    tool = as_object(schema)
    assert tool["type"] == "object"
    given = answer if tool == schema else {"answer": answer}
    assert await check_answer(tool, given) == given
    assert await check_answer(schema, given) == answer
