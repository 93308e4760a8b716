"""Wrong types in every place of many requests and chunks: an error by name, never another failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects import from_chat, messages, to_chat
from farmhand.gateway.turn import BadRequest, CannotCarry, Dialect
from tests.unit.gateway import clients
from tests.unit.gateway.player import A, chunk, fragment, look, say, sse, tool, used
from tests.unit.gateway.requests import ABLE, READ
from tests.unit.gateway.test_answers import call, completion
from tests.unit.gateway.test_left_out import ADVICE, NOTHING
from tests.unit.gateway.test_refusals import CASES

JUNK: list[Any] = [None, True, 0, -1, 10**30, 1.5, "", "x", "data:,", [], [[]], [None], {}, [{}], {"type": 7}, ["x"]]
DOCUMENTS = [(dialect, document) for dialect, document, *_ in (*CASES, *NOTHING, *ADVICE)]


def changed(value: Any) -> Iterator[Any]:
    """The value with each place in it, one at a time, taken by each piece of junk."""
    yield from JUNK
    if isinstance(value, dict):
        for name, one in value.items():
            for other in changed(one):
                yield {**value, name: other}
            yield {key: kept for key, kept in value.items() if key != name}
    elif isinstance(value, list):
        for at, one in enumerate(value):
            for other in changed(one):
                yield [*value[:at], other, *value[at + 1 :]]


@pytest.mark.parametrize("dialect", sorted(READ))
def test_requests(dialect: str) -> None:
    read = tried = 0
    for document in (document for spoken, document in DOCUMENTS if spoken == dialect):
        for other in changed(document):
            tried += 1
            try:
                turn = READ[dialect](json.dumps(other).encode(), {})
                to_chat.request(turn, ABLE)
                if dialect == "messages":
                    messages.native_request(turn, ABLE)
                read += 1
            except (BadRequest, CannotCarry):
                continue
    assert tried > 3_000
    assert read > 100


CHUNKS = [
    say("x"),
    used(),
    chunk({"reasoning_content": "hm"}, "stop", stop_reason="END"),
    look('{"path":'),
    tool(0, '"a.py"}'),
    chunk({"tool_calls": [fragment(1, A, name="find", ident="c2")]}, "tool_calls"),
    chunk({"function_call": {"name": "look", "arguments": "{}"}}),
    chunk(None, "stop", message={"content": "x", "tool_calls": [fragment(None, "{}", name="look", ident="c1")]}),
    {"error": {"message": "x", "code": 500, "n_ctx": 1, "n_prompt_tokens": 2, "type": "exceed_context_size_error"}},
]


@pytest.mark.parametrize("dialect", ["messages", "chat", "responses"])
@pytest.mark.parametrize("number", range(len(CHUNKS)))
def test_chunks(dialect: Dialect, number: int) -> None:
    for other in changed(CHUNKS[number]):
        text = f"data: {json.dumps(other)}"
        body = sse(say("a"), look(""), text, chunk({}, "stop"), "data: [DONE]")
        written = clients.events(clients.play(dialect, body))
        if dialect == "messages":
            clients.check_messages(written)
        elif dialect == "responses":
            clients.check_responses(written)
        else:
            assert written


@pytest.mark.parametrize("dialect", ["messages", "chat", "responses"])
def test_answers(dialect: Dialect) -> None:
    message = {"content": "x", "reasoning": "hm", "tool_calls": [call("look", '{"path":"a.py"}')]}
    for other in changed(msgspec.json.decode(completion(message))):
        try:
            made, _ = from_chat.answer(clients.turn_of(dialect), json.dumps(other).encode(), "1")
        except BackendError:
            continue
        assert isinstance(msgspec.json.decode(made), dict)
