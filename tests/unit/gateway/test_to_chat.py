"""What a local server is sent, from each dialect."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farmhand.gateway.carries import ChatOptions
from farmhand.gateway.dialects import messages, to_chat
from tests.unit.gateway.requests import ABLE, PNG, called, of_chat, of_messages, of_responses, request, sent, turn

ATTRIBUTION = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.332.18b; cch=1;"}
TEXT = {"type": "text", "text": "hi"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
SEEN = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}


def told(*said: Any, **fields: Any) -> list[dict[str, Any]]:
    return list(sent("messages", of_messages(messages=list(said), **fields))["messages"])


def test_a_turn_of_a_harness() -> None:
    body = sent(
        "messages",
        {
            "model": "claude-farmhand-agent",
            "max_tokens": 100,
            "stream": True,
            "system": [ATTRIBUTION, {"type": "text", "text": "Be brief."}, {"type": "text", "text": "In English."}],
            "messages": [
                *called({"type": "text", "text": "seen"}),
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, TEXT]},
                {"role": "user", "content": "go"},
            ],
            "tools": [TOOL],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "temperature": 0.5,
            "top_k": 3,
            "stop_sequences": ["END"],
        },
    )
    assert body == {
        "messages": [
            {"role": "system", "content": "Be brief.\n\nIn English."},
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "seen"},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": "go"},
        ],
        "max_tokens": 100,
        "temperature": 0.5,
        "top_k": 3,
        "stop": ["END"],
        "tools": [
            {
                "type": "function",
                "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}},
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "model": "qwen",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("choice", "becomes"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
    ],
)
def test_the_choice_of_a_tool(choice: dict[str, Any], becomes: Any) -> None:
    assert sent("messages", of_messages(tools=[TOOL], tool_choice=choice))["tool_choice"] == becomes


def test_a_failed_tool_says_so() -> None:
    assert told(*called(TEXT, is_error=True))[-1]["content"] == "ERROR: hi"


def test_images_of_a_result_follow_the_results() -> None:
    first, second = called(TEXT, IMAGE)[2]["content"][0], called(TEXT)[2]["content"][0] | {"tool_use_id": "t2"}
    found = told(*called()[:2], {"role": "user", "content": [first, second, {"type": "text", "text": "so?"}]})
    assert found[2:] == [
        {"role": "tool", "tool_call_id": "t1", "content": "hi"},
        {"role": "tool", "tool_call_id": "t2", "content": "hi"},
        {"role": "user", "content": [SEEN, {"type": "text", "text": "so?"}]},
    ]


def test_turns_of_one_side_are_joined_as_the_messages_api_does() -> None:
    user = {"role": "user", "content": "a"}
    assert told(user, user, {"role": "user", "content": [IMAGE]})[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "a"},
        SEEN,
    ]
    assert told(user, user) == [{"role": "user", "content": "a\n\na"}]


def test_a_system_message_amid_the_conversation() -> None:
    """lemonade#2674: templates raise on a system message that is not the first."""
    said = [{"role": "user", "content": "a"}, {"role": "system", "content": "now"}]
    document = of_messages(messages=said, system="S")
    assert sent("messages", document)["messages"] == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a\n\n<system-reminder>\nnow\n</system-reminder>"},
    ]
    as_system = ChatOptions(model="qwen", mid_system="system")
    assert sent("messages", document, as_system)["messages"][2] == {"role": "system", "content": "now"}


def test_a_system_message_for_one_turn_is_gone_in_the_next() -> None:
    user = {"role": "user", "content": "a"}
    once = {"role": "system", "content": "now", "clear_at": "next_user_message"}
    assert "now" in told(user, once)[0]["content"]
    assert told(user, once, {"role": "assistant", "content": "b"}, user) == told(
        user, {"role": "assistant", "content": "b"}, user
    )


def names(*said: Any, **fields: Any) -> list[str]:
    tools = [TOOL, TOOL | {"name": "late", "defer_loading": True}]
    body = sent("messages", of_messages(messages=list(said), tools=tools, **fields))
    return [tool["function"]["name"] for tool in body["tools"]]


def test_a_deferred_tool_is_offered_once_the_conversation_names_it() -> None:
    user = {"role": "user", "content": "a"}
    reference = {"type": "tool_reference", "name": "late"}
    assert names(user) == ["look"]
    assert "defer_loading" in request("messages", of_messages(tools=[TOOL | {"defer_loading": True}])).omitted
    assert names(*called({"type": "tool_reference", "tool_name": "late"})) == ["look", "late"]
    added = {"role": "system", "content": [{"type": "tool_addition", "tool": reference}]}
    assert names(user, added) == ["look", "late"]
    removed = {"role": "system", "content": [{"type": "tool_removal", "tool": reference}]}
    assert names(user, added, removed) == ["look"]
    assert names(user, added, removed, added) == ["look", "late"]


def test_a_schema_of_the_answer() -> None:
    form = {"type": "json_schema", "schema": {"type": "object", "title": "T"}}
    assert sent("messages", of_messages(output_config={"format": form}))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": form["schema"], "strict": True},
    }
    named = {"type": "json_schema", "name": "n", "schema": {}, "strict": True, "description": None}
    assert sent("responses", of_responses(text={"format": named}))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {}, "strict": True},
    }
    assert sent("responses", of_responses(text={"format": {"type": "text"}}))["response_format"] == {"type": "text"}


def test_a_chat_request_keeps_its_bytes_and_its_order() -> None:
    body = (
        b'{"temperature":1.00,"model":"farmhand/chat","messages":[ {"role":"user","content":"\\u00e9", "x":1} ],'
        b'"user":"u","min_p":0.10,"tools":[{"type":"function", "function":{"name":"f","parameters":{}}}]}'
    )
    made = to_chat.request(turn("chat", body), ABLE)
    assert made.body == body.replace(b'"farmhand/chat"', b'"qwen"').replace(b'"user":"u",', b"")
    assert made.omitted == ("user",)


def test_a_streamed_chat_request_asks_for_its_usage() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"x":1},"messages":[{"role":"user","content":"a"}]}'
    assert msgspec.json.decode(to_chat.request(turn("chat", body), ABLE).body) == {
        "model": "qwen",
        "stream": True,
        "stream_options": {"x": 1, "include_usage": True},
        "messages": [{"role": "user", "content": "a"}],
    }


def test_what_the_operator_adds() -> None:
    adds = ChatOptions(model="qwen", extra_body={"chat_template_kwargs": {"enable_thinking": False}, "temperature": 0})
    for dialect, document in (("messages", of_messages()), ("chat", of_chat()), ("responses", of_responses())):
        body = sent(dialect, document | {"temperature": 1}, adds)
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        assert body["temperature"] == 0


def test_a_turn_of_codex() -> None:
    made = request(
        "responses",
        {
            "model": "m",
            "instructions": "Be brief.",
            "store": False,
            "stream": True,
            "include": ["reasoning.encrypted_content"],
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "May write."}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "look"}]},
                {"type": "reasoning", "summary": [], "encrypted_content": "e"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
                {"type": "function_call", "call_id": "1", "name": "look", "arguments": '{"a": 1}'},
                {"type": "function_call", "call_id": "2", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "one"},
                {"type": "function_call_output", "call_id": "2", "output": "two"},
            ],
            "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}],
        },
    )
    assert made.omitted == ("include", "reasoning")
    body = msgspec.json.decode(made.body)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief.\n\nMay write."},
        {"role": "user", "content": "look"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}},
                {"id": "2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": "two"},
    ]
    function = {"name": "look", "parameters": {"type": "object"}, "strict": False}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("auto", False)


def test_the_attribution_goes_and_only_as_a_first_block_of_its_own() -> None:
    document = of_messages(system=[ATTRIBUTION, TEXT])
    assert sent("messages", document)["messages"][0]["content"] == "hi"
    assert request("messages", document).omitted == ("attribution",)
    more = {"type": "text", "text": ATTRIBUTION["text"] + "\nBe brief."}
    for system in ([TEXT, ATTRIBUTION], [more], more["text"]):
        kept = sent("messages", of_messages(system=system))["messages"][0]["content"]
        assert "x-anthropic-billing-header" in kept
        assert messages.native_request(turn("messages", of_messages(system=system)), ABLE).omitted == ()


def test_a_native_server_gets_the_fields_as_they_came() -> None:
    body = (
        b'{"temperature":1.00,"model":"m","metadata":{"user_id":"u"},"thinking":{"type":"adaptive"},'
        b'"system":[{"type":"text","text":"x-anthropic-billing-header: a"},{"type":"text", "text":"\\u00e9"}],'
        b'"messages":[ {"role":"user","content":"a"} ]}'
    )
    made = messages.native_request(turn("messages", body), ABLE)
    gone = b'{"type":"text","text":"x-anthropic-billing-header: a"},'
    assert made.body == body.replace(b'"m"', b'"qwen"').replace(gone, b"")
    assert made.omitted == ("attribution",)


SAID = st.sampled_from([
    {"role": "user", "content": "a"},
    {"role": "user", "content": [TEXT, IMAGE]},
    {"role": "assistant", "content": "b"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "look", "input": {"a": [1, 2.5]}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "c"}]},
    {"role": "system", "content": "d"},
])  # fmt: skip


def has(message: dict[str, Any], kind: str) -> bool:
    """Whether a message of SAID has a block of this kind."""
    return any(block["type"] == kind for block in message["content"] if isinstance(block, dict))


def comes_late(before: list[Any], after: list[Any]) -> bool:
    """Whether a result in `after` is of a call in `before` that somebody has spoken after: it goes behind its call."""
    said = [*before, *after]
    for at in range(len(before), len(said)):
        call = max((number for number in range(at) if has(said[number], "tool_use")), default=at)
        between = {one["role"] if not has(one, "tool_result") else "result" for one in said[call + 1 : at]}
        if has(said[at], "tool_result") and call < len(before) and between not in (set(), {"assistant"}, {"result"}):
            return True
    return False


@given(st.lists(SAID, min_size=1, max_size=8), st.lists(SAID, max_size=4))
def test_the_prefix_of_a_conversation_stays_the_same(before: list[Any], after: list[Any]) -> None:
    """A server finds its cached prompt only so. The last message may go on, as turns of one side are joined."""
    assume(not comes_late(before, after))
    first, then = told(*before), told(*before, *after)
    assert then[: len(first) - 1] == first[:-1]
    assert then[len(first) - 1]["role"] == first[-1]["role"]
