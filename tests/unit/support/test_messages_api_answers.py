"""What the loopback Messages API answers, through the official SDK: plain, streaming, tools, usage."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import jsonschema
import pytest

from tests.support.messages_api import MessagesApi, Rule, Step
from tests.support.messages_api.answer import echo
from tests.support.messages_api.instance import NoInstanceError, smallest
from tests.support.messages_api.rules import ToolUse
from tests.support.messages_api.sse import pieces

NEW, OLD = "claude-haiku-5-5", "claude-haiku-4-5"
TOOL: Any = {
    "name": "look",
    "input_schema": {
        "type": "object",
        "properties": {"at": {"type": "string", "minLength": 9}, "n": {"type": "integer", "minimum": 3}},
        "required": ["at", "n"],
        "additionalProperties": False,
    },
}


def says(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def test_plain(client: anthropic.AsyncAnthropic) -> None:
    raw = await client.messages.with_raw_response.create(model=OLD, max_tokens=200, messages=says("hello there"))
    message = await raw.parse()
    assert message.model == "claude-haiku-4-5-20251001"
    assert [block.model_dump()["text"] for block in message.content] == [echo("hello there")]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.input_tokens == 11  # 11 bytes at 4 a token, and 8 of overhead
    assert message.usage.output_tokens == -(-len(echo("hello there")) // 4) + 1
    assert raw.headers["anthropic-organization-id"]
    for name in ("requests", "tokens", "input-tokens", "output-tokens"):
        limit, left = (int(raw.headers[f"anthropic-ratelimit-{name}-{end}"]) for end in ("limit", "remaining"))
        assert 0 <= left < limit
        assert raw.headers[f"anthropic-ratelimit-{name}-reset"].endswith("Z")


async def test_newer_models_think_unless_told_not_to(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(model=NEW, max_tokens=2000, messages=says("hi"))
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.usage.output_tokens_details is not None
    assert 0 < message.usage.output_tokens_details.thinking_tokens < message.usage.output_tokens
    message = await client.messages.create(
        model=NEW, max_tokens=2000, messages=says("hi"), thinking={"type": "disabled"}
    )
    assert [block.type for block in message.content] == ["text"]


@pytest.mark.parametrize("model", [NEW, OLD])
async def test_stream_gives_the_same_in_pieces(client: anthropic.AsyncAnthropic, model: str) -> None:
    plain = await client.messages.create(model=model, max_tokens=2000, messages=says("hello"))
    texts: list[str] = []
    async with client.messages.stream(model=model, max_tokens=2000, messages=says("hello")) as stream:
        async for text in stream.text_stream:
            texts.append(text)
        final = await stream.get_final_message()
    assert len(texts) >= 3
    assert "".join(texts) == echo("hello")
    assert final.usage.output_tokens == plain.usage.output_tokens
    assert final.usage.input_tokens == plain.usage.input_tokens
    assert [block.type for block in final.content] == [block.type for block in plain.content]


async def test_order_of_the_events(client: anthropic.AsyncAnthropic) -> None:
    stream = await client.messages.create(model=OLD, max_tokens=200, messages=says("hello"), stream=True)
    events = [event async for event in stream]
    kinds = [event.type for event in events if event.type != "content_block_delta"]
    assert kinds == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    first, last = events[0].model_dump()["message"], events[-2].model_dump()
    assert (first["content"], first["stop_reason"], first["usage"]["output_tokens"]) == ([], None, 1)
    assert last["delta"]["stop_reason"] == "end_turn"
    assert last["usage"]["input_tokens"] == first["usage"]["input_tokens"]
    assert last["usage"]["output_tokens"] > 1


async def test_max_tokens_cuts(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(model=OLD, max_tokens=5, messages=says("hello"))
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 5)
    assert echo("hello").startswith(message.content[0].model_dump()["text"])
    message = await client.messages.create(model=OLD, max_tokens=0, messages=says("hello"))
    assert (message.stop_reason, message.usage.output_tokens, message.content) == ("max_tokens", 0, [])


async def test_stop_sequence_cuts(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(model=OLD, max_tokens=90, messages=says("hi"), stop_sequences=[" to ", "x"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " to ")
    assert message.content[0].model_dump()["text"] == "Loopback answer"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "look"}])
async def test_forced_tool(client: anthropic.AsyncAnthropic, choice: Any) -> None:
    for stream in (False, True):
        arguments: Any = {
            "model": NEW,
            "max_tokens": 2000,
            "messages": says("x"),
            "tools": [TOOL],
            "tool_choice": choice,
        }
        if stream:
            async with client.messages.stream(**arguments) as events:
                message: Any = await events.get_final_message()
        else:
            message = await client.messages.create(**arguments)
        assert message.stop_reason == "tool_use"
        (block,) = message.content
        jsonschema.validate(block.input, TOOL["input_schema"])
        assert block.id.startswith("toolu_")


async def test_output_format(client: anthropic.AsyncAnthropic) -> None:
    schema: dict[str, Any] = TOOL["input_schema"]
    message = await client.messages.create(
        model=OLD,
        max_tokens=200,
        messages=says("x"),
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    jsonschema.validate(json.loads(message.content[0].model_dump()["text"]), schema)


async def test_rule_with_a_tool_and_its_result(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    use = ToolUse(name="look", input={"at": "the river", "n": 4})
    api.rule(Rule(contains="go", steps=[Step(text="Looking.", tool_use=use), Step(text="Saw <{tool_result}>")]))
    messages = says("go now")
    first = await client.messages.create(model=OLD, max_tokens=200, messages=messages, tools=[TOOL])
    assert [block.type for block in first.content] == ["text", "tool_use"]
    call: Any = first.content[1]
    assert call.input == {"at": "the river", "n": 4}
    messages += [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "water"}]},
    ]
    second = await client.messages.create(model=OLD, max_tokens=200, messages=messages, tools=[TOOL])
    assert [block.model_dump()["text"] for block in second.content] == ["Saw <water>"]
    without = await client.messages.create(model=OLD, max_tokens=200, messages=says("go now"))
    assert without.content[0].model_dump()["text"] == echo("go now")


async def test_prompt_cache(client: anthropic.AsyncAnthropic) -> None:
    system: Any = [{"type": "text", "text": "rule " * 5000, "cache_control": {"type": "ephemeral"}}]
    usages = []
    for question in ("one", "two"):
        message = await client.messages.create(model=OLD, max_tokens=50, system=system, messages=says(question))
        usages.append(message.usage)
    first, second = usages
    assert (first.cache_creation_input_tokens, first.cache_read_input_tokens) == (6250, 0)
    assert first.cache_creation is not None
    assert first.cache_creation.ephemeral_5m_input_tokens == 6250
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens) == (0, 6250)
    assert first.input_tokens == second.input_tokens < 20
    short: Any = [{"type": "text", "text": "rule", "cache_control": {"type": "ephemeral"}}]
    message = await client.messages.create(model=OLD, max_tokens=50, system=short, messages=says("one"))
    assert message.usage.cache_creation_input_tokens == 0  # below the model's least length


async def test_prompt_cache_grows_with_the_conversation(client: anthropic.AsyncAnthropic) -> None:
    def block(text: str) -> dict[str, Any]:
        return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}

    messages: Any = [{"role": "user", "content": [block("word " * 4000)]}]
    await client.messages.create(model=OLD, max_tokens=50, messages=messages)
    messages += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": [block("more " * 400)]}]
    message = await client.messages.create(model=OLD, max_tokens=50, messages=messages)
    assert message.usage.cache_read_input_tokens == 5000
    assert message.usage.cache_creation_input_tokens == 501


async def test_count_tokens_and_models(client: anthropic.AsyncAnthropic) -> None:
    count = await client.messages.count_tokens(model=OLD, messages=says("hello there"))
    assert count.input_tokens == 11
    listed = [model.id async for model in client.models.list()]
    assert listed[0] == NEW
    assert (await client.models.retrieve(OLD)).max_tokens == 64_000
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("claude-3-5-haiku-20241022")


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "object",
            "properties": {"a": {"type": ["null", "string"], "pattern": "^[A-Z]{2}-\\d+$"}},
            "required": ["a"],
        },
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/x"}},
            "required": ["a"],
            "$defs": {"x": {"enum": [3, 4]}},
        },
        {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "minItems": 2},
        {"type": "object", "minProperties": 2, "additionalProperties": {"type": "boolean"}},
        {"anyOf": [{"type": "string", "maxLength": 2, "minLength": 2}, {"type": "null"}]},
        {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"const": None}}, "required": ["b"]}]},
        {"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True},
        {"type": "integer", "minimum": 7, "multipleOf": 5},
        {"type": "integer", "maximum": -2},
        {"type": "string", "format": "date-time"},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False, "minItems": 2},
    ],
)
def test_smallest_instance(schema: dict[str, Any]) -> None:
    jsonschema.validate(smallest(schema), schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("schema", [{"type": "string", "not": {}}, {"$ref": "#"}, {"anyOf": [False]}])
def test_no_instance(schema: dict[str, Any]) -> None:
    with pytest.raises(NoInstanceError):
        smallest(schema)


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "é🎉" * 500, "x" * 100_000])
def test_pieces_lose_nothing(text: str) -> None:
    parts = pieces(text)
    assert "".join(parts) == text
    assert len(parts) >= min(3, len(text))
    assert len(parts) <= 500


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(a+)+$", "const": "a" * 60 + "!"},
        {"type": "object", "patternProperties": {"^(a+)+$": False}, "required": ["a" * 60 + "!"]},
        {"type": "string", "pattern": "^(?=b)(a{60}|a)(a+)+$"},
        {"type": "string", "pattern": "^(?:(a+)+)(?!x)(?<=b)$", "minLength": 60},
    ],
)
def test_a_pattern_that_never_ends_is_given_up(schema: dict[str, Any]) -> None:
    """The search would take years. What makes answers for schemas gives up after some seconds."""
    with pytest.raises(NoInstanceError):
        smallest(schema)
