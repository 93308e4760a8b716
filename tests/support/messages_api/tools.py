"""Checks of `tools`, `tool_choice` and JSON Schemas."""

from __future__ import annotations

import re

import jsonschema

from tests.support.messages_api.errors import ApiError, bad
from tests.support.messages_api.fields import (
    Object,
    a_bool,
    a_list,
    a_string,
    an_object,
    cache_control,
    only,
    required,
    tag,
)

_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,128}$")
#: Tools the API itself defines; they carry a dated type and no schema.
_BUILT_IN = re.compile(
    r"^(bash|text_editor|memory|web_search|web_fetch|code_execution|computer|computer_toolset|browser_toolset|"
    r"tool_search_tool_(bm25|regex))(_\d{8})?$"
)
_FIELDS = (
    "name", "description", "input_schema", "type", "cache_control", "strict", "defer_loading",
    "allowed_callers", "input_examples", "eager_input_streaming",
)  # fmt: skip
_NOT_A_SCHEMA = (
    "JSON schema is invalid. It must match JSON Schema draft 2020-12 (https://json-schema.org/draft/2020-12). "
    "Learn more about tool use at https://docs.claude.com/en/docs/tool-use."
)


def check_tools(value: object) -> list[Object]:
    """The list of tools; gives it back typed."""
    tools = a_list(value, "tools")
    names: set[str] = set()
    for i, item in enumerate(tools):
        tool = an_object(item, f"tools.{i}")
        kind = str(tool.get("type") or "custom")
        if kind != "custom" and not _BUILT_IN.match(kind):
            tag(tool, f"tools.{i}", ("bash_20250124", "custom", "text_editor_20250728", "web_search_20260318"))
        if kind == "custom":
            _custom(tool, f"tools.{i}.custom")
        a_string(tool.get("name", kind), f"tools.{i}.{kind}.name")
        tool.setdefault("name", kind)  # toolsets have none
        if tool["name"] in names:
            raise bad("tools", "Tool names must be unique.")
        names.add(tool["name"])
    if tools and all(tool.get("defer_loading") for tool in tools):
        raise ApiError(400, "All tools have defer_loading set")
    return tools


def _custom(tool: Object, path: str) -> None:
    required(tool, path, ("name", "input_schema"))
    only(tool, path, _FIELDS)
    if not _NAME.match(a_string(tool["name"], f"{path}.name")):
        raise bad(f"{path}.name", f"String should match pattern '{_NAME.pattern}'")
    if "description" in tool:
        a_string(tool["description"], f"{path}.description")
    for flag in ("strict", "defer_loading"):
        if flag in tool:
            a_bool(tool[flag], f"{path}.{flag}")
    cache_control(tool, path)
    schema = an_object(tool["input_schema"], f"{path}.input_schema")
    if "type" not in schema:
        raise bad(f"{path}.input_schema.type", "Field required")
    if schema["type"] != "object":
        raise bad(f"{path}.input_schema.type", "Input should be 'object'")
    for word in ("oneOf", "allOf", "anyOf"):
        if word in schema:
            raise bad(f"{path}.input_schema", "input_schema does not support oneOf, allOf, or anyOf at the top level")
    check_schema(schema, f"{path}.input_schema")


def check_schema(schema: Object, path: str) -> None:
    """A JSON Schema of draft 2020-12."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise bad(path, _NOT_A_SCHEMA) from error


def check_tool_choice(value: object, tools: list[Object], thinking: bool) -> None:
    """`tool_choice` against the tools; a forced tool and thinking exclude each other."""
    choice = an_object(value, "tool_choice")
    kind = tag(choice, "tool_choice", ("any", "auto", "none", "tool"))
    names = ("type",) if kind == "none" else ("type", "disable_parallel_tool_use")
    only(choice, f"tool_choice.{kind}", (*names, "name") if kind == "tool" else names)
    if kind == "tool":
        required(choice, "tool_choice.tool", ("name",))
        a_string(choice["name"], "tool_choice.tool.name")
    if not tools and kind != "none":
        raise bad("tool_choice", "tool_choice may only be specified while providing tools.")
    if kind == "tool" and choice["name"] not in {tool.get("name") for tool in tools}:
        raise ApiError(400, f"Tool '{choice['name']}' not found in provided tools")
    if kind in ("any", "tool") and thinking:
        raise ApiError(400, "Thinking may not be enabled when tool_choice forces tool use.")
