"""Chat Completions and Responses on their way to the Messages API: what arrives, and what is refused by its path."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from anthropic.types.beta import message_create_params
from pydantic import TypeAdapter

from farmhand.gateway.dialects import to_messages
from farmhand.gateway.dialects.to_messages import PaidOptions, PaidRequest
from farmhand.gateway.turn import BadRequest, CannotCarry
from tests.unit.gateway.requests import PNG, of_chat, of_messages, of_responses, turn
from tests.unit.gateway.test_refusals import CASES, C

OPTIONS = PaidOptions(model="claude-haiku-5-5")
URL = "https://example.com/x.png"
#: Cases of Chat and Responses that end otherwise than before a local server: their paths, "" if the canary arrives.
OTHERWISE = {
    '"something_of_the_server"': "something_of_the_server",
    '"logit_bias"': "logit_bias",
    f'"arguments":"{C}"': "input[0].arguments",
}


def made(dialect: str, document: Any, options: PaidOptions = OPTIONS) -> PaidRequest:
    return to_messages.request(turn(dialect, document), options)


def body(dialect: str, document: Any, options: PaidOptions = OPTIONS) -> dict[str, Any]:
    """What the API gets; it is of the form that the provider's own SDK has."""
    found: dict[str, Any] = msgspec.json.decode(made(dialect, document, options).body)
    TypeAdapter(message_create_params.MessageCreateParamsNonStreaming).validate_python(found)
    return found


@pytest.mark.parametrize(("dialect", "document", "path"), [case for case in CASES if case[0] != "messages"])
def test_nothing_is_dropped_in_silence(dialect: str, document: dict[str, Any], path: str) -> None:
    text = msgspec.json.encode(document).decode()
    expected = next((other for mark, other in OTHERWISE.items() if mark in text), path)
    if expected:
        with pytest.raises(CannotCarry) as lost:
            made(dialect, document)
        assert lost.value.path == expected
    else:
        assert C.encode() in made(dialect, document).body


LOST: list[tuple[str, dict[str, Any], str]] = [
    # The API takes a schema only, and closed objects in it (chrisvel/tududi#1353, veryfront/veryfront-code#3918).
    ("chat", of_chat(response_format={"type": "json_object"}), "response_format"),
    ("responses", of_responses(text={"format": {"type": "json_object"}}), "text.format"),
    ("chat", of_chat(frequency_penalty=0.5), "frequency_penalty"),
    ("chat", of_chat(presence_penalty=-1), "presence_penalty"),
    ("chat", of_chat(logprobs=True), "logprobs"),
    ("chat", of_chat(top_logprobs=2), "top_logprobs"),
    ("chat", of_chat(temperature=1.5), "temperature"),
    ("chat", of_chat(chat_template_kwargs={"a": 1}), "chat_template_kwargs"),
    ("chat", of_chat({"type": "image_url", "image_url": {"url": URL}}), "messages[0].content[0]"),
    ("responses", of_responses({"role": "user", "content": [{"type": "input_image", "image_url": URL}]}),
     "input[0].content[0]"),
    ("chat", of_chat(messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "look", "arguments": "[1]"}}]}]),
     "messages[1].tool_calls[0].function.arguments"),
    ("chat", of_chat(tools=[{"type": "function", "function": {"name": "a"}}],
                     tool_choice={"type": "function", "function": {"name": "b"}}), "tool_choice"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "document", "path"), LOST)
def test_what_the_api_has_not_is_refused(dialect: str, document: dict[str, Any], path: str) -> None:
    with pytest.raises(CannotCarry) as lost:
        made(dialect, document)
    assert lost.value.path == path


def test_what_only_advises_is_left_out_and_named() -> None:
    document = of_chat(seed=1, n=1, user="u", store=False, reasoning_effort="high", frequency_penalty=0)
    found = made("chat", document)
    assert set(found.omitted) == {"seed", "user", "store", "reasoning_effort"}
    assert set(msgspec.json.decode(found.body)) == {"model", "max_tokens", "messages"}


def test_a_conversation_in_chat() -> None:
    call = {"id": "call:1", "type": "function", "function": {"name": "look", "arguments": '{"n": 1.50}'}}
    messages = [
        {"role": "system", "content": "A."},
        {"role": "developer", "content": [{"type": "text", "text": "B."}]},
        {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {
            "url": f"data:image/png;base64,{PNG}", "detail": "low"}}]},
        {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [call, call | {"id": "call-2"}]},
        {"role": "tool", "tool_call_id": "call-2", "content": "two"},
        {"role": "tool", "tool_call_id": "call:1", "content": ""},
        {"role": "system", "content": "C."},
        {"role": "user", "content": "on"},
    ]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "look", "strict": True}}]
    document = of_chat(
        messages=messages, tools=tools, tool_choice="required", parallel_tool_calls=False, stop=["x"], max_tokens=7
    )
    found = body("chat", document)
    assert found["system"] == [{"type": "text", "text": "A."}, {"type": "text", "text": "B."}]
    assert [message["role"] for message in found["messages"]] == ["user", "assistant", "user"]
    seen, said, results = (message["content"] for message in found["messages"])
    assert seen[1]["source"] == {"type": "base64", "media_type": "image/png", "data": PNG}
    assert [block["type"] for block in said] == ["tool_use", "tool_use"]
    assert said[0]["input"] == {"n": 1.5}
    assert [block["type"] for block in results] == ["tool_result", "tool_result", "text", "text"]
    # An id that the API would not take is replaced, and its result finds it.
    assert results[1]["tool_use_id"] == said[0]["id"] != "call:1"
    assert results[0] == {"type": "tool_result", "tool_use_id": "call-2", "content": [{"type": "text", "text": "two"}]}
    assert results[2]["text"] == "<system-reminder>\nC.\n</system-reminder>"
    assert found["tools"] == [{"name": "look", "input_schema": {"type": "object"}, "strict": True}]
    assert found["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert (found["stop_sequences"], found["max_tokens"]) == (["x"], 7)
    assert b'{"n": 1.50}' in made("chat", document).body  # as it was written
    assert set(made("chat", document).omitted) == {"reasoning_content", "detail"}


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_the_form_of_an_answer(dialect: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    forms: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
        ({"type": "text"}, None),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}, "name": "x"} | {"schema": schema},
            schema,
        ),
    ]
    for form, wanted in forms:
        keys = ("type", "json_schema") if dialect == "chat" else ("type", "name", "schema")
        given = {key: form[key] for key in keys if key in form}
        document = of_chat(response_format=given) if dialect == "chat" else of_responses(text={"format": given})
        config = body(dialect, document).get("output_config")
        assert config == (None if wanted is None else {"format": {"type": "json_schema", "schema": wanted}})


def test_the_operator_may_let_the_provider_fetch_and_adds_to_the_body() -> None:
    options = PaidOptions(model="m", fetch=True, extra_body={"cache_control": {"type": "ephemeral"}})
    found = body("chat", of_chat({"type": "image_url", "image_url": {"url": URL}}), options)
    assert found["messages"][0]["content"][0]["source"] == {"type": "url", "url": URL}
    assert found["cache_control"] == {"type": "ephemeral"}
    same = body("messages", of_messages(), options)
    assert (same["model"], same["cache_control"]) == ("m", {"type": "ephemeral"})


@pytest.mark.parametrize("document", [of_chat(messages=[{"role": "system", "content": "x"}]),
                                      of_chat(messages=[{"role": "user", "content": ""}])])  # fmt: skip
def test_a_request_in_which_nobody_says_anything(document: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="nobody says anything"):
        made("chat", document)


@pytest.mark.parametrize("schema", [None, {}, {"properties": {"a": {}}}, {"type": None}, {"type": "object"}])
def test_a_tools_schema_is_that_of_an_object(schema: Any) -> None:
    """The API wants the type to be there: lidge-jun/opencodex#75, ogx-ai/ogx#6017, farion1231/cc-switch#3847."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": schema}}]
    assert body("chat", of_chat(tools=tools))["tools"][0]["input_schema"] == (schema or {}) | {"type": "object"}


def test_ids_that_a_server_gives_again_and_again_are_made_unique() -> None:
    """Tool ids must be unique and of certain characters: trycua/cua#524, maximhq/bifrost#5097, fastllm#42."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    for number, ident in enumerate(("functions.look:0", "functions.look:0", "c" * 65, "call_0", "call_0")):
        call = {"id": ident, "type": "function", "function": {"name": "look", "arguments": ""}}
        messages += [{"role": "assistant", "tool_calls": [call]}]
        messages += [{"role": "tool", "tool_call_id": ident, "content": str(number)}]
    found = body("chat", of_chat(messages=messages))["messages"]
    calls = [block["id"] for message in found[1::2] for block in message["content"]]
    results = [block["tool_use_id"] for message in found[2::2] for block in message["content"]]
    assert len(set(calls)) == 5
    assert calls == results
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", ident) for ident in calls)
    assert calls[3] == "call_0"


def test_what_the_user_says_beside_a_result_stays_behind_it() -> None:
    """StringKe/claudex#8; and an empty result stays a result: BerriAI/litellm#37462."""
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c1", "output": ""}
    said = {"role": "user", "content": "Now reply."}
    found = body("responses", of_responses(call, said, result))["messages"]
    assert [block["type"] for block in found[-1]["content"]] == ["tool_result", "text", "text"]
    assert "content" not in found[-1]["content"][0]
