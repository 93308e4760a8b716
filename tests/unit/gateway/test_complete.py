"""Every field and type that the installed SDKs know stands in exactly one column of the table of `carries`.

A new release of an SDK that brings a field or a block fails here, until somebody has decided what becomes of it.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import anthropic.types.beta as beta
import pytest
from anthropic.types import message_create_params as plain_create
from anthropic.types.beta import (
    beta_image_block_param,
    beta_request_tool_addition_block_param,
    beta_system_message_param,
)
from anthropic.types.beta import message_create_params as beta_create
from openai.types import chat, responses
from openai.types.chat import completion_create_params as chat_create
from openai.types.responses import response_create_params as response_create
from typing_extensions import get_type_hints

from farmhand.gateway.carries import TABLES, Table, undated
from farmhand.gateway.carries_paid import PAID_TABLES


def members(union: Any) -> Iterator[Any]:
    """The types in a union, however it is written and nested."""
    origin = typing.get_origin(union)
    if origin is typing.Annotated:
        yield from members(typing.get_args(union)[0])
    elif origin in (typing.Union, types.UnionType):
        for one in typing.get_args(union):
            yield from members(one)
    else:
        yield union


def is_object(known: Any) -> bool:
    return hasattr(known, "__required_keys__")


def fields(*known: Any) -> set[str]:
    """The names of the fields of TypedDicts."""
    return {name for one in known for name in get_type_hints(one)}


def kinds(union: Any, field: str = "type") -> dict[str, Any]:
    """The TypedDicts of a union by their `type`, without the dates of versions; and its own literal texts."""
    found: dict[str, Any] = {}
    for one in members(union):
        named: list[str] = [*typing.get_args(one)] if typing.get_origin(one) is typing.Literal else []
        if is_object(one):
            hint = get_type_hints(one).get(field)
            named = [text for part in members(hint) for text in typing.get_args(part) if isinstance(text, str)]
        found |= {undated(name): one for name in named}
    return found


def field_of(known: Any, name: str) -> Any:
    return get_type_hints(known)[name]


def listed(known: Any, name: str) -> Any:
    """What is in a field that is a text, or a list of a union."""
    found = [one for part in members(field_of(known, name)) for one in typing.get_args(part)]
    return typing.Union[tuple(found)]  # noqa: UP007


STREAMED = {"stream"}
BLOCKS = kinds(beta.BetaContentBlockParam)
RESULT_BLOCKS = kinds(listed(beta.BetaToolResultBlockParam, "content"))
CHANGED = kinds(beta_request_tool_addition_block_param.Tool)
ROLES = kinds(chat.ChatCompletionMessageParam, "role")
PARTS = kinds(chat.ChatCompletionContentPartParam) | kinds(listed(chat.ChatCompletionAssistantMessageParam, "content"))
FORMATS = kinds(field_of(chat_create.CompletionCreateParamsBase, "response_format"))
ITEMS = kinds(responses.ResponseInputItemParam)
#: The parts of what is asked, of what was answered, and of a tool's result.
RESPONSE_PARTS = (
    kinds(responses.ResponseInputContentParam),
    kinds(listed(responses.ResponseOutputMessageParam, "content")),
    kinds(listed(ITEMS["function_call_output"], "output")),
)
RESPONSE_TOOLS = kinds(responses.ToolParam)
RESPONSE_FORMATS = kinds(field_of(responses.ResponseTextConfigParam, "format"))


def part(kind: str) -> set[str]:
    """The fields of a part of a Responses request, wherever it may stand."""
    return fields(*(known[kind] for known in RESPONSE_PARTS if kind in known))


#: Each table, and the names that the installed SDKs know for it.
KNOWN: Mapping[str, set[str]] = {
    "messages.request": fields(plain_create.MessageCreateParamsBase, beta_create.MessageCreateParamsBase) | STREAMED,
    "messages.message": fields(beta.BetaUserMessageParam, beta.BetaAssistantMessageParam),
    "messages.system_message": fields(beta_system_message_param.BetaSystemMessageParam),
    "messages.blocks": set(BLOCKS),
    "messages.result_blocks": set(RESULT_BLOCKS),
    "messages.text": fields(BLOCKS["text"]),
    "messages.image": fields(BLOCKS["image"]),
    "messages.sources": set(kinds(beta_image_block_param.Source)),
    "messages.source": fields(kinds(beta_image_block_param.Source)["base64"]),
    "messages.tool_use": fields(BLOCKS["tool_use"]),
    "messages.tool_result": fields(BLOCKS["tool_result"]),
    "messages.tool_reference": fields(RESULT_BLOCKS["tool_reference"]),
    "messages.tool_change": fields(BLOCKS["tool_addition"], BLOCKS["tool_removal"]),
    "messages.changed": set(CHANGED),
    "messages.changed_tool": fields(CHANGED["tool_reference"]),
    "messages.tools": set(kinds(beta.BetaToolUnionParam)),
    "messages.tool": fields(beta.BetaToolParam),
    "messages.tool_choices": set(kinds(beta.BetaToolChoiceParam)),
    "messages.tool_choice": fields(*kinds(beta.BetaToolChoiceParam).values()),
    "messages.output_config": fields(beta.BetaOutputConfigParam),
    "messages.formats": set(kinds(beta.BetaJSONOutputFormatParam)),
    "messages.format": fields(beta.BetaJSONOutputFormatParam),
    "chat.request": fields(chat_create.CompletionCreateParamsBase) | STREAMED,
    "chat.roles": set(ROLES),
    "chat.message": fields(*(one for role, one in ROLES.items() if role != "function")),
    "chat.parts": set(PARTS),
    "chat.tools": set(kinds(chat.ChatCompletionToolUnionParam)),
    "chat.calls": set(kinds(chat.ChatCompletionMessageToolCallUnionParam)),
    "chat.tool_choices": set(kinds(chat.ChatCompletionToolChoiceOptionParam)),
    "chat.formats": set(FORMATS),
    "chat.image": fields(field_of(PARTS["image_url"], "image_url")),
    "responses.request": fields(response_create.ResponseCreateParamsBase) | STREAMED,
    "responses.items": set(ITEMS),
    "responses.message": fields(
        responses.EasyInputMessageParam,
        responses.ResponseOutputMessageParam,
        *(one for one in members(responses.ResponseInputItemParam) if one.__name__ == "Message"),
    ),
    "responses.function_call": fields(ITEMS["function_call"]),
    "responses.function_call_output": fields(ITEMS["function_call_output"]),
    "responses.parts": set().union(*RESPONSE_PARTS),
    "responses.input_text": part("input_text"),
    "responses.output_text": part("output_text"),
    "responses.refusal": part("refusal"),
    "responses.input_image": part("input_image"),
    "responses.tools": set(RESPONSE_TOOLS),
    "responses.tool": fields(RESPONSE_TOOLS["function"]),
    "responses.tool_choices": set(kinds(field_of(response_create.ResponseCreateParamsBase, "tool_choice"))),
    "responses.tool_choice": fields(responses.ToolChoiceFunctionParam),
    "responses.text": fields(responses.ResponseTextConfigParam),
    "responses.formats": set(RESPONSE_FORMATS),
    "responses.format": fields(RESPONSE_FORMATS["json_schema"]),
}


def columns(table: Table, name: str) -> int:
    """In how many columns a name stands."""
    return (name in table.carried) + (name in table.advisory) + (name in table.refused)


def undecided(tables: Mapping[str, Table]) -> list[str]:
    """The names that stand in no column, or in several."""
    return [f"{place}: {name}" for place in tables for name in KNOWN[place] if columns(tables[place], name) != 1]


@pytest.mark.parametrize("tables", [TABLES, PAID_TABLES], ids=["local", "paid"])
def test_each_name_that_an_sdk_knows_is_in_one_column(tables: Mapping[str, Table]) -> None:
    assert undecided(tables) == []


def test_nothing_passes_unknown_to_who_is_paid() -> None:
    assert not [place for place, table in PAID_TABLES.items() if table.open]
    assert set(PAID_TABLES) >= {place for place in TABLES if not place.startswith("messages.")}


def test_the_sdks_are_read_and_not_only_walked_past() -> None:
    assert set(KNOWN) == set(TABLES) | set(PAID_TABLES)
    assert {place: len(names) for place, names in KNOWN.items() if not names} == {}
    assert {"document", "tool_result", "server_tool_use"} <= KNOWN["messages.blocks"]
    assert {"web_search", "custom", "bash"} <= KNOWN["messages.tools"]
    assert {"safety_identifier", "logit_bias"} <= KNOWN["chat.request"]
    assert {"item_reference", "reasoning", "mcp_call"} <= KNOWN["responses.items"]


@pytest.mark.parametrize("place", sorted(TABLES))
def test_no_row_can_be_taken_away(place: str) -> None:
    table = TABLES[place]
    for name in KNOWN[place]:
        less = Table(
            table.carried - {name}, table.advisory - {name}, {n: row for n, row in table.refused.items() if n != name}
        )
        assert undecided({**TABLES, place: less}) == [f"{place}: {name}"]


#: Rows that no type of an SDK has: what clients were seen to send, and what an open-ended type leaves to documents.
OURS = {
    "messages.request": {"safeguards", "temperature", "top_k", "top_p"},
    "messages.message": {"cache_control"},
    "messages.system_message": {"cache_control"},
    "responses.request": {"client_metadata"},
    "responses.parts": {"input_audio"},
}
#: The same of the tables of the paid target: what local servers call a model's thinking.
OURS_PAID = OURS | {"chat.message": {"reasoning", "reasoning_content", "reasoning_details"}}


@pytest.mark.parametrize(("tables", "ours"), [(TABLES, OURS), (PAID_TABLES, OURS_PAID)], ids=["local", "paid"])
def test_no_row_is_stale(tables: Mapping[str, Table], ours: Mapping[str, set[str]]) -> None:
    for place, table in tables.items():
        rows = table.carried | table.advisory | set(table.refused)
        assert rows - KNOWN[place] == ours.get(place, set()), place
        assert set(table.harmless) <= set(table.refused), place


def test_a_table_has_no_name_twice() -> None:
    for place, table in [*TABLES.items(), *PAID_TABLES.items()]:
        names = [*table.carried, *table.advisory, *table.refused]
        assert len(names) == len(set(names)), place
