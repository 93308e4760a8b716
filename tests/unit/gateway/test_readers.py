"""Readers: what is in a request, and what is no request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farmhand.gateway.dialects import messages, reading
from farmhand.gateway.turn import BadRequest, Carries
from tests.unit.gateway.requests import PNG, called, of_chat, of_messages, of_responses, turn

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
BY_URL = {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
FUNCTION = {"type": "function", "function": {"name": "look"}}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}

WEB, BASH = {"type": "web_search_20250305"}, {"type": "bash_20250124"}
SEEN = {"type": "input_image", "image_url": "data:,"}

CARRIED: list[tuple[str, dict[str, Any], Carries]] = [
    ("messages", of_messages(), Carries()),
    ("messages", of_messages(tools=[TOOL, TOOL | {"type": "custom"}]), Carries(tools=2)),
    (
        "messages",
        of_messages(
            tools=[{"type": "web_search_20250305"}, {"type": "bash_20250124"}, {"type": "web_search_20250305"}]
        ),
        Carries(hosted_tools=("web_search_20250305", "bash_20250124")),
    ),
    ("messages", of_messages(mcp_servers=[{"name": "x"}]), Carries(hosted_tools=("mcp",))),
    ("messages", of_messages(messages=called({"type": "text", "text": "x"})), Carries(tool_history=True)),
    ("messages", of_messages(messages=called(IMAGE)), Carries(tool_history=True, images=1)),
    ("messages", of_messages(IMAGE, BY_URL), Carries(images=2, image_urls=True)),
    ("messages", of_messages({"type": "document"}, {"type": "search_result"}), Carries(documents=2)),
    ("messages", of_messages(output_config={"format": {"type": "json_schema"}}), Carries(schema=True)),
    ("messages", of_messages(output_config={"effort": "low"}), Carries()),
    ("messages", of_messages(stop_sequences=["a"]), Carries(stop_sequences=True)),
    ("messages", of_messages(stop_sequences=[]), Carries()),
    ("messages", of_messages(safeguards={}), Carries(safeguards=True)),
    ("messages", of_messages(messages=[{"role": "assistant", "content": "So"}]), Carries(prefill=True)),
    ("chat", of_chat(tools=[FUNCTION]), Carries(tools=1)),
    ("chat", of_chat(functions=[{"name": "x"}]), Carries(tools=1)),
    ("chat", of_chat(web_search_options={}), Carries(hosted_tools=("web_search_options",))),
    (
        "chat",
        of_chat(
            messages=[{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "user", "content": "x"}]
        ),
        Carries(tool_history=True),
    ),
    ("chat", of_chat(messages=[{"role": "tool", "tool_call_id": "1", "content": "x"}]), Carries(tool_history=True)),
    (
        "chat",
        of_chat(
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
            {"type": "input_audio"},
        ),
        Carries(images=2, image_urls=True, documents=1),
    ),
    ("chat", of_chat(response_format={"type": "json_object"}, stop="a"), Carries(schema=True, stop_sequences=True)),
    ("chat", of_chat(response_format={"type": "text"}), Carries()),
    ("responses", of_responses(), Carries()),
    ("responses", {"model": "m", "input": "hi"}, Carries()),
    (
        "responses",
        of_responses(
            {"type": "reasoning", "summary": []},
            {
                "type": "function_call_output",
                "call_id": "1",
                "output": [{"type": "input_image", "image_url": "data:,"}],
            },
            tools=[{"type": "function", "name": "f"}, {"type": "namespace"}, {"type": "web_search"}],
        ),
        Carries(tools=1, tool_history=True, images=1, hosted_tools=("namespace", "web_search")),
    ),
    (
        "responses",
        of_responses({"role": "user", "content": [{"type": "input_file"}]}, text={"format": {"type": "json_schema"}}),
        Carries(documents=1, schema=True),
    ),
    ("responses", {"model": "m", "input": [{"role": "assistant", "content": "So"}]}, Carries(prefill=True)),
]


@pytest.mark.parametrize(("dialect", "document", "carries"), CARRIED)
def test_what_a_turn_carries(dialect: str, document: dict[str, Any], carries: Carries) -> None:
    assert turn(dialect, document).carries == carries


def test_a_turn_keeps_the_bytes_of_its_fields() -> None:
    body = b'{"model" : "m", "messages": [ {"role":"user","content":"\\u00e9"} ], "temperature":1.00, "stream":true}'
    read = turn("messages", body, {"X-Session-Id": "s", "Authorization": "Bearer t", "x-api-key": "k", "Cookie": "c"})
    assert list(read.fields) == ["model", "messages", "temperature", "stream"]
    assert bytes(read.fields["messages"]) == b'[ {"role":"user","content":"\\u00e9"} ]'
    assert bytes(read.fields["temperature"]) == b"1.00"
    assert read.streamed
    assert read.headers == {"x-session-id": "s"}


@pytest.mark.parametrize(
    ("dialect", "document", "most"),
    [
        ("messages", of_messages(max_tokens=7), 7),
        ("messages", of_messages(max_tokens=None), None),
        ("chat", of_chat(max_tokens=7), 7),
        ("chat", of_chat(max_tokens=7, max_completion_tokens=5), 5),
        ("responses", of_responses(max_output_tokens=7), 7),
        ("responses", of_responses(), None),
    ],
)
def test_the_limit_of_the_answer(dialect: str, document: dict[str, Any], most: int | None) -> None:
    assert turn(dialect, document).max_tokens == most


def test_tokens_are_estimated_from_what_a_model_reads() -> None:
    assert 2_400 < turn("messages", of_messages(system="word " * 2_000)).tokens < 2_700
    assert 2_400 < turn("chat", of_chat(tools=[FUNCTION | {"x": "word " * 2_000}])).tokens < 2_700
    assert 2_400 < turn("responses", of_responses(instructions="word " * 2_000)).tokens < 2_700
    assert turn("messages", of_messages(metadata={"user_id": "x" * 9_000})).tokens < 100
    # A character of Chinese is a token or more, and three bytes.
    assert 1_000 < turn("messages", of_messages(system="语" * 1_000)).tokens < 1_500
    # An image costs by its size in pixels, not by its bytes.
    assert turn("messages", of_messages(IMAGE)).tokens < 100
    big = {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}
    assert 4_000 < turn("messages", of_messages({"type": "image", "source": big})).tokens < 5_000


BAD: list[tuple[str, Any, str, str]] = [
    ("messages", b"", "", "JSON"),
    ("messages", b"{", "", "JSON"),
    ("messages", b"[]", "", "object"),
    ("messages", b"null", "", "object"),
    ("messages", b'{"a":NaN}', "", "JSON"),
    ("messages", b'{"a":1e999}', "", "JSON"),
    ("messages", b'{"a":"\xff"}', "", "UTF-8"),
    ("messages", b'{"a":"\\ud800"}', "", "JSON"),
    ("messages", b'{"a":"\\ud800\\u0041"}', "", "JSON"),
    ("messages", b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "", "in each other"),
    ("messages", b'{"a":' + b"[" * 150 + b"]" * 150 + b"}", "", "in each other"),
    ("messages", b"[" + b"{}," * 500_000 + b"{}]", "", "values"),
    ("messages", of_messages({"type": "text", "text": "a\0b"}), "messages[0].content[0].text", "NUL"),
    ("messages", of_messages(metadata={"a\0": 1}), "metadata", "NUL"),
    ("messages", {"messages": []}, "messages", "none"),
    ("messages", {"messages": [{"role": "user", "content": "x"}]}, "model", "missing"),
    ("messages", of_messages() | {"model": 7}, "model", "text"),
    ("messages", of_messages() | {"model": ""}, "model", "empty"),
    ("messages", of_messages(stream="yes"), "stream", "true nor false"),
    ("messages", of_messages(stream=1), "stream", "true nor false"),
    ("messages", of_messages(max_tokens=-1), "max_tokens", "whole number"),
    ("messages", of_messages(max_tokens=True), "max_tokens", "whole number"),
    ("messages", of_messages(max_tokens=1.5), "max_tokens", "whole number"),
    ("messages", of_messages(messages={}), "messages", "list"),
    ("messages", of_messages(messages=["x"]), "messages[0]", "object"),
    ("messages", of_messages(messages=[{"role": "king", "content": "x"}]), "messages[0].role", "user"),
    ("messages", of_messages(messages=[{"role": "user", "content": 7}]), "messages[0].content", "list"),
    ("messages", of_messages("x"), "messages[0].content[0]", "object"),
    ("messages", of_messages({"text": "x"}), "messages[0].content[0].type", "text"),
    ("messages", of_messages({"type": []}), "messages[0].content[0].type", "text"),
    ("messages", of_messages(messages=called("x")), "messages[2].content[0].content[0]", "object"),
    ("messages", of_messages(system=7), "system", "list"),
    ("messages", of_messages(tools={}), "tools", "list"),
    ("messages", of_messages(tools=[{"type": 7}]), "tools[0].type", "text"),
    ("messages", of_messages(stop_sequences=[7]), "stop_sequences", "texts"),
    ("messages", of_messages(output_config=[]), "output_config", "object"),
    ("chat", of_chat(messages=[{"content": "x"}]), "messages[0].role", "missing"),
    ("chat", of_chat(messages=[]), "messages", "none"),
    ("chat", of_chat({"type": "image_url", "image_url": "x"}), "messages[0].content[0].image_url", "object"),
    ("chat", of_chat(tools=[{"function": {}}]), "tools[0].type", "text"),
    ("chat", of_chat(max_completion_tokens="9"), "max_completion_tokens", "whole number"),
    ("responses", {"model": "m"}, "input", "none"),
    ("responses", {"model": "m", "input": 7}, "input", "list"),
    ("responses", {"model": "m", "input": [{"role": "tool", "content": "x"}]}, "input[0].role", "developer"),
    ("responses", of_responses(text=7), "text", "object"),
]


@pytest.mark.parametrize(("dialect", "document", "path", "words"), BAD)
def test_what_is_no_request_is_refused_by_its_path(dialect: str, document: Any, path: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        turn(dialect, document)
    assert caught.value.path == path
    assert words in caught.value.why
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_text_about_an_escaped_nul_is_text() -> None:
    assert turn("messages", of_messages({"type": "text", "text": "\\u0000"})).tokens


def test_as_deep_as_may_be() -> None:
    deep: Any = 0
    for _ in range(reading.MAX_DEPTH - 1):
        deep = [deep]
    assert turn("messages", of_messages(metadata=deep)).model == "m"
    with pytest.raises(BadRequest):
        turn("messages", of_messages(metadata=[deep]))


def test_a_turn_is_decoded_once_and_keeps_no_copy() -> None:
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    turn = messages.read(json.dumps(asked).encode(), {})
    assert turn.decoded == asked
    assert turn.values() == asked
    assert turn.decoded is None
    assert turn.values() == asked  # from the fields
