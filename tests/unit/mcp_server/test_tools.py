"""The tools' schemas, which are the wire's, and their arguments."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from farmhand.core.errors import UsageError
from farmhand.core.task import Task
from farmhand.mcp_server import server, tools

SCHEMAS = {name: tools.input_schema(tool) for name, tool in tools.TOOLS.items()}


def _words(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_words, value.values()))
    return set().union(*map(_words, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_has_nothing_that_clients_refuse(name: str) -> None:
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert not _words(schema) & {"anyOf", "oneOf", "allOf", "$ref", "$defs", "if", "not"}
    assert all("description" in value for value in schema["properties"].values())


def test_the_fields_of_a_task_are_the_wires() -> None:
    wire = {field.name: field for field in msgspec.structs.fields(Task)}
    for name in tools.TOOLS["farm_task"].wire:
        schema = SCHEMAS["farm_task"]["properties"][name]
        assert name in wire
        if wire[name].default not in ("", None, msgspec.NODEFAULT):
            assert schema["default"] == wire[name].default
    assert SCHEMAS["farm_task"]["required"] == ["prompt"]
    assert SCHEMAS["farm_task"]["properties"]["max_usd"]["type"] == "number"
    assert SCHEMAS["farm_result"]["required"] == ["id"]


def test_the_tools_cost_a_session_few_tokens() -> None:
    text = json.dumps([tool.model_dump(by_alias=True, exclude_none=True) for tool in server.listed()])
    assert len(text) + len(server.INSTRUCTIONS) < 6000
    assert [tool.name for tool in server.listed()] == [*tools.TOOLS]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("farm_task", {"prompt": "x", "wait_s": "long"}, "Expected `float`"),
        ("farm_task", {"prompt": "x", "wait_s": 1e9}, "<= 600"),
        ("farm_task", {"prompt": "x", "engine": "cli"}, "unknown field `engine`"),
        ("farm_task", {"prompt": "x", "tools": ["Bash"]}, "unknown field `tools`"),
        ("farm_result", {}, "missing required field `id`"),
        ("farm_status", {"a": 1}, "unknown field `a`"),
    ],
)
def test_wrong_arguments_are_named_with_what_there_is(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as wrong:
        tools.read(name, arguments)
    assert wrong.value.hint.startswith("its arguments: ")


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("farm_task", {"prompt": "[1]", "files": '["a", "b"]', "wait_s": "3"}, {"files": ["a", "b"], "wait_s": 3.0}),
        ("farm_task", {"prompt": "5", "max_tokens": "99", "max_usd": "0.5"}, {"max_tokens": 99, "max_usd": 0.5}),
        (
            "farm_task",
            {"prompt": "x", "max_tokens": 99.0, "schema": '{"type": "object"}'},
            {"max_tokens": 99, "schema": {"type": "object"}},
        ),
        ("farm_batch", {"tasks": '["a", {"prompt": "b"}]'}, {"tasks": ["a", {"prompt": "b"}]}),
        ("farm_task", {"prompt": "x", "files": None, "label": None, "model": None, "schema": None, "wait_s": None}, {}),
    ],
)
def test_an_argument_that_a_client_sends_as_text_or_null_is_what_was_meant(
    name: str, given: dict[str, Any], meant: dict[str, Any]
) -> None:
    own, wire = tools.read(name, given)
    found = wire | msgspec.to_builtins(own)
    assert found == meant | ({"prompt": given["prompt"]} if "prompt" in given else {})


@pytest.mark.parametrize("given", [{"files": "a.txt"}, {"files": '["a"'}, {"wait_s": "true"}, {"files": "[" * 100_000}])
def test_a_text_that_is_nothing_else_stays_one(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="got `str`"):
        tools.read("farm_task", {"prompt": "x", **given})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": 1}, "Expected `str`"),
        ({}, "missing required field `prompt`"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "schema": {"type": "no"}}, "schema"),
        ({"prompt": "key sk-ant-test-0123456789abcdefghij"}, "API key stands in the task"),
        ({"prompt": "x", "system": "sk-ant-test-0123456789abcdefghij"}, "API key stands in the task"),
    ],
)
def test_a_wrong_task_is_refused_before_anything_is_sent(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as wrong:
        tools.task_of({"id": "x", **fields}, "farm_task")
    assert "sk-ant-test" not in str(wrong.value)


@pytest.mark.parametrize("given", ["../x", "a/b", "", "-x", "a" * 65])
def test_an_id_is_no_path(given: str) -> None:
    with pytest.raises(UsageError, match="is no id"):
        tools.job_id(given)
