"""Nothing is dropped in silence: what a client put into a request is in the server's, or refused by its JSON path."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from farmhand.gateway.carries import ChatOptions
from farmhand.gateway.dialects import messages, to_chat
from farmhand.gateway.turn import CannotCarry
from tests.unit.gateway.requests import ABLE, BARE, PNG, called, of_chat, of_messages, of_responses, request, turn

#: What must not get lost.
C = "canary-7141"
TEXT = {"type": "text", "text": "hi"}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": C}}


def system(**fields: Any) -> dict[str, Any]:
    return of_messages(messages=[{"role": "user", "content": "hi"}, {"role": "system", **fields}])


def answered(*blocks: Any) -> dict[str, Any]:
    return of_messages(
        messages=[
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [*blocks]},
            {"role": "user", "content": "go"},
        ]
    )


#: dialect, request, the path that is refused ("" if the canary arrives)
CASES: list[tuple[str, dict[str, Any], str]] = [
    # Messages: the request
    ("messages", of_messages(system=C), ""),
    ("messages", of_messages(system=[TEXT, {"type": "text", "text": C}]), ""),
    ("messages", of_messages(stop_sequences=[C]), ""),
    ("messages", of_messages(container=C), "container"),
    ("messages", of_messages(thread={"type": "continue", "previous_message_id": C}), "thread"),
    ("messages", of_messages(compaction={"instructions": C}), "compaction"),
    ("messages", of_messages(mcp_servers=[{"type": "url", "url": C, "name": "x"}]), "mcp_servers"),
    ("messages", of_messages(safeguards={"x": C}), "safeguards"),
    ("messages", of_messages(something_new=C), "something_new"),
    ("messages", of_messages(output_config={"format": {"type": "json_schema", "schema": {"title": C}}}), ""),
    ("messages", of_messages(output_config={"format": {"type": C}}), "output_config.format"),
    ("messages", of_messages(output_config={"new": C}), "output_config.new"),
    ("messages", of_messages(output_format={"type": "json_schema", "schema": {"title": C}}), "output_format"),
    # Messages: blocks
    ("messages", of_messages({"type": "text", "text": C}), ""),
    ("messages", of_messages(TEXT, {"type": "text", "text": C}), ""),
    ("messages", of_messages(TEXT, DOCUMENT), "messages[0].content[1]"),
    ("messages", of_messages({"type": "search_result", "title": C, "content": []}), "messages[0].content[0]"),
    ("messages", of_messages({"type": "container_upload", "file_id": C}), "messages[0].content[0]"),
    ("messages", of_messages({"type": "hologram", "data": C}), "messages[0].content[0]"),
    ("messages", of_messages(TEXT | {"citations": [{"cited_text": C}]}), "messages[0].content[0].citations"),
    ("messages", of_messages(TEXT | {"shade": C}), "messages[0].content[0].shade"),
    (
        "messages",
        of_messages({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": C}}),
        "",
    ),
    ("messages", of_messages({"type": "image", "source": {"type": "url", "url": C}}), "messages[0].content[0].source"),
    (
        "messages",
        of_messages({"type": "image", "source": {"type": "file", "file_id": C}}),
        "messages[0].content[0].source",
    ),
    (
        "messages",
        of_messages(
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                "transformations": {"oversized_image": C},
            }
        ),
        "messages[0].content[0].transformations",
    ),
    ("messages", answered({"type": "text", "text": C}), ""),
    ("messages", answered(USE | {"input": {"q": C}}), ""),
    ("messages", answered(USE | {"caller": {"type": C}}), "messages[1].content[0].caller"),
    ("messages", answered({"type": "server_tool_use", "id": "x", "name": C}), "messages[1].content[0]"),
    ("messages", answered({"type": "web_search_tool_result", "content": C}), "messages[1].content[0]"),
    ("messages", answered({"type": "mcp_tool_use", "name": C}), "messages[1].content[0]"),
    ("messages", answered({"type": "compaction", "content": C}), "messages[1].content[0]"),
    ("messages", of_messages(messages=called({"type": "text", "text": C})), ""),
    ("messages", of_messages(messages=called(content=C)), ""),
    ("messages", of_messages(messages=called(TEXT, is_error=True, content=C)), ""),
    ("messages", of_messages(messages=called({"type": "tool_reference", "tool_name": C})), ""),
    ("messages", of_messages(messages=called(TEXT, DOCUMENT)), "messages[2].content[0].content[1]"),
    (
        "messages",
        of_messages(messages=called({"type": "search_result", "title": C})),
        "messages[2].content[0].content[0]",
    ),
    (
        "messages",
        of_messages(
            messages=called(TEXT, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": C}})
        ),
        "",
    ),
    ("messages", of_messages(messages=called(TEXT, toolset_name=C)), "messages[2].content[0].toolset_name"),
    ("messages", system(content=C), ""),
    ("messages", system(content=[{"type": "text", "text": C}]), ""),
    (
        "messages",
        system(content=[{"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"name": C}}}]),
        "messages[1].content[0].tool",
    ),
    # Messages: tools
    ("messages", of_messages(tools=[TOOL | {"description": C}]), ""),
    ("messages", of_messages(tools=[TOOL | {"input_schema": {"type": "object", "title": C}}]), ""),
    ("messages", of_messages(tools=[TOOL | {"input_examples": [{"q": C}]}]), ""),
    ("messages", of_messages(tools=[TOOL, TOOL | {"allowed_callers": [C]}]), "tools[1].allowed_callers"),
    ("messages", of_messages(tools=[{"type": "web_search_20250305", "name": C}]), "tools[0]"),
    ("messages", of_messages(tools=[TOOL, {"type": "bash_20250124", "name": C}]), "tools[1]"),
    ("messages", of_messages(tools=[{"type": "telepathy_20270101", "name": C}]), "tools[0]"),
    ("messages", of_messages(tools=[TOOL], tool_choice={"type": "tool", "name": C}), "tool_choice"),
    ("messages", of_messages(tools=[TOOL | {"name": C}], tool_choice={"type": "tool", "name": C}), ""),
    ("messages", of_messages(tools=[TOOL], tool_choice={"type": C}), "tool_choice"),
    # Chat
    ("chat", of_chat({"type": "text", "text": C}), ""),
    ("chat", of_chat(something_of_the_server=C), ""),
    ("chat", of_chat(logit_bias={C: 1}), ""),
    ("chat", of_chat(stop=C), ""),
    ("chat", of_chat(n=2, note=C), "n"),
    ("chat", of_chat(prediction={"type": "content", "content": C}), "prediction"),
    ("chat", of_chat(modalities=["text", C]), "modalities"),
    ("chat", of_chat(audio={"voice": C, "format": "wav"}), "audio"),
    ("chat", of_chat(web_search_options={"user_location": C}), "web_search_options"),
    ("chat", of_chat(functions=[{"name": C}]), "functions"),
    ("chat", of_chat({"type": "file", "file": {"file_id": C}}), "messages[0].content[0]"),
    ("chat", of_chat({"type": "input_audio", "input_audio": {"data": C}}), "messages[0].content[0]"),
    ("chat", of_chat({"type": "image_url", "image_url": {"url": "https://x.test/" + C}}), "messages[0].content[0]"),
    ("chat", of_chat({"type": "image_url", "image_url": {"url": "data:image/png;base64," + C}}), ""),
    ("chat", of_chat(tools=[{"type": "custom", "custom": {"name": C}}]), "tools[0]"),
    ("chat", of_chat(tool_choice={"type": "allowed_tools", "allowed_tools": C}), "tool_choice"),
    (
        "chat",
        of_chat(
            messages=[
                {"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {"input": C}}]},
                {"role": "tool", "tool_call_id": "1", "content": "x"},
            ]
        ),
        "messages[0].tool_calls[0]",
    ),
    (
        "chat",
        of_chat(messages=[{"role": "assistant", "audio": {"id": C}}, {"role": "user", "content": "go"}]),
        "messages[0].audio",
    ),
    ("chat", of_chat(messages=[{"role": "function", "name": "x", "content": C}]), "messages[0]"),
    # Responses
    ("responses", of_responses(instructions=C), ""),
    ("responses", {"model": "m", "input": C}, ""),
    ("responses", of_responses({"role": "developer", "content": C}), ""),
    ("responses", of_responses({"role": "assistant", "content": [{"type": "output_text", "text": C}]}), ""),
    ("responses", of_responses(prompt={"id": C}), "prompt"),
    ("responses", of_responses(moderation={"model": C}), "moderation"),
    ("responses", of_responses(something_new=C), "something_new"),
    ("responses", of_responses({"type": "item_reference", "id": C}), "input[0]"),
    ("responses", of_responses({"type": "compaction", "encrypted_content": C}), "input[0]"),
    ("responses", of_responses({"type": "web_search_call", "id": C}), "input[0]"),
    ("responses", of_responses({"type": "custom_tool_call", "input": C}), "input[0]"),
    ("responses", of_responses({"type": "additional_tools", "tools": [{"name": C}]}), "input[0]"),
    ("responses", of_responses({"type": "function_call", "call_id": "1", "name": "f", "arguments": C}), ""),
    (
        "responses",
        of_responses({"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}", "namespace": C}),
        "input[0].namespace",
    ),
    ("responses", of_responses({"type": "function_call_output", "call_id": "1", "output": C}), ""),
    (
        "responses",
        of_responses(
            {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_file", "file_id": C}]}
        ),
        "input[0].output[0]",
    ),
    (
        "responses",
        of_responses({"role": "user", "content": [{"type": "input_file", "file_data": C}]}),
        "input[0].content[0]",
    ),
    (
        "responses",
        of_responses({"role": "user", "content": [{"type": "input_image", "file_id": C, "image_url": "data:,x"}]}),
        "input[0].content[0].file_id",
    ),
    ("responses", of_responses(tools=[{"type": "function", "name": C, "parameters": {}}]), ""),
    ("responses", of_responses(tools=[{"type": "web_search", "filters": C}]), "tools[0]"),
    ("responses", of_responses(tools=[{"type": "namespace", "name": C, "tools": []}]), "tools[0]"),
    ("responses", of_responses(tools=[{"type": "custom", "name": C, "format": {}}]), "tools[0]"),
    (
        "responses",
        of_responses(text={"format": {"type": "json_schema", "name": "n", "schema": {"title": C}}}),
        "",
    ),
    ("responses", of_responses(text={"format": {"type": "text"}, "new": C}), "text.new"),
]


@pytest.mark.parametrize(
    ("dialect", "document", "path"), CASES, ids=[f"{n}-{c[2] or 'in'}" for n, c in enumerate(CASES)]
)
def test_a_canary_arrives_or_its_path_is_refused(dialect: str, document: dict[str, Any], path: str) -> None:
    asked = turn(dialect, document)
    if path:
        with pytest.raises(CannotCarry) as caught:
            to_chat.request(asked, ABLE)
        assert caught.value.path == path
        assert caught.value.what
    else:
        assert C in to_chat.request(asked, ABLE).body.decode()


@pytest.mark.parametrize(("dialect", "document", "path"), [case for case in CASES if case[0] == "messages"])
def test_a_server_that_speaks_messages_is_refused_the_same(dialect: str, document: dict[str, Any], path: str) -> None:
    if path:
        with pytest.raises(CannotCarry) as caught:
            messages.native_request(turn(dialect, document), ABLE)
        assert caught.value.path == path
    else:
        assert C in messages.native_request(turn(dialect, document), ABLE).body.decode()


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (of_responses(store=True), "store"),
        (of_responses(background=True), "background"),
        (of_responses(previous_response_id=C), "previous_response_id"),
        (of_responses(conversation=C), "conversation"),
    ],
)
def test_state_at_the_server_is_refused_as_soon_as_it_is_read(document: dict[str, Any], path: str) -> None:
    with pytest.raises(CannotCarry) as caught:
        turn("responses", document)
    assert caught.value.path == path
    assert not turn("responses", of_responses(store=False, background=False, previous_response_id=None)).streamed


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
SCHEMA = {"type": "json_schema", "schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("dialect", "document", "path"),
    [
        ("messages", of_messages(TEXT, IMAGE), "messages[0].content[1]"),
        ("messages", of_messages(messages=called(IMAGE)), "messages[2].content[0].content[0]"),
        ("messages", of_messages(output_config={"format": SCHEMA}), "output_config.format"),
        ("messages", of_messages(messages=[{"role": "assistant", "content": "So"}]), "messages[0]"),
        ("chat", of_chat({"type": "image_url", "image_url": {"url": "data:,x"}}), "messages[0].content[0]"),
        ("chat", of_chat(response_format={"type": "json_object"}), "response_format"),
        ("chat", of_chat(messages=[{"role": "assistant", "content": "So"}]), "messages[0]"),
        (
            "responses",
            of_responses({"role": "user", "content": [{"type": "input_image", "image_url": "data:,x"}]}),
            "input[0].content[0]",
        ),
        ("responses", of_responses(text={"format": {"type": "json_object"}}), "text.format"),
        ("responses", {"model": "m", "input": [{"role": "assistant", "content": "So"}]}, "input[0]"),
    ],
)
def test_what_only_some_servers_can_do_is_refused_by_the_others(
    dialect: str, document: dict[str, Any], path: str
) -> None:
    with pytest.raises(CannotCarry) as caught:
        request(dialect, document, BARE)
    assert caught.value.path == path
    assert request(dialect, document, ABLE).body


LEAVES_OUT = ChatOptions(model="qwen", omit_hosted_tools=True)
WEB = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize(
    ("dialect", "document", "omitted"),
    [
        ("messages", of_messages(tools=[WEB, TOOL]), "tools[0] web_search_20250305"),
        (
            "chat",
            of_chat(tools=[{"type": "custom", "custom": {}}, {"type": "function", "function": {"name": "look"}}]),
            "tools[0] custom",
        ),
        (
            "responses",
            of_responses(tools=[{"type": "web_search"}, {"type": "function", "name": "look", "parameters": {}}]),
            "tools[0] web_search",
        ),
    ],
)
def test_hosted_tools_are_left_out_only_where_the_operator_says_so(
    dialect: str, document: dict[str, Any], omitted: str
) -> None:
    made = request(dialect, document, LEAVES_OUT)
    assert omitted in made.omitted
    assert [tool["function"]["name"] for tool in msgspec.json.decode(made.body)["tools"]] == ["look"]
    with pytest.raises(CannotCarry, match="tools"):
        request(dialect, document, ABLE)


def test_the_choice_of_a_tool_that_is_left_out_is_refused() -> None:
    chosen = {"tool_choice": {"type": "tool", "name": "web_search"}}
    with pytest.raises(CannotCarry) as caught:
        request("messages", of_messages(tools=[WEB, TOOL], **chosen), LEAVES_OUT)
    assert caught.value.path == "tool_choice"
    with pytest.raises(CannotCarry):
        request("responses", of_responses(tool_choice={"type": "function", "name": "look"}), LEAVES_OUT)


@pytest.mark.parametrize("kind", ["x\r\nset-cookie: a=b", "x" * 10_000, "été\x1b[0m"])
def test_a_name_of_the_client_is_fit_for_a_header(kind: str) -> None:
    made = request("messages", of_messages(tools=[{"type": kind}]), LEAVES_OUT)
    assert len(made.omitted) == 1
    assert all(" " <= c < "\x7f" for c in made.omitted[0])
    assert len(made.omitted[0]) < 100
    assert turn("messages", of_messages(tools=[{"type": kind}])).carries.hosted_tools[0] in made.omitted[0]
    with pytest.raises(CannotCarry) as caught:
        request("messages", of_messages(**{kind: 1}))
    assert all(" " < c < "\x7f" for c in caught.value.path)
    assert len(caught.value.path) <= 80


def test_a_native_server_is_offered_the_other_tools_as_they_came() -> None:
    made = messages.native_request(turn("messages", of_messages(tools=[WEB, TOOL])), LEAVES_OUT)
    assert msgspec.json.decode(made.body)["tools"] == [TOOL]
    assert made.omitted == ("tools[0] web_search_20250305",)


def test_a_hosted_tool_that_was_called_is_refused_even_so() -> None:
    used = answered({"type": "server_tool_use", "id": "x", "name": "web_search"})
    with pytest.raises(CannotCarry, match=r"messages\[1\]"):
        request("messages", used | {"tools": [WEB]}, LEAVES_OUT)
