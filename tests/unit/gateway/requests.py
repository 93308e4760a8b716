"""Requests of harnesses for the tests: the smallest of each dialect, and what can be put into them."""

from __future__ import annotations

from typing import Any

import msgspec

from farmhand.gateway.carries import ChatOptions, ChatRequest
from farmhand.gateway.dialects import chat, messages, responses, to_chat
from farmhand.gateway.turn import Turn

READ = {"chat": chat.read, "messages": messages.read, "responses": responses.read}
ABLE = ChatOptions(model="qwen", vision=True, schema=True, prefill=True)
BARE = ChatOptions(model="qwen")
#: A picture of one pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="


def turn(dialect: str, document: Any, headers: dict[str, str] | None = None) -> Turn:
    """Read a request."""
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return READ[dialect](body, headers or {})


def sent(dialect: str, document: Any, options: ChatOptions = ABLE) -> dict[str, Any]:
    """What a local server gets of a request."""
    return msgspec.json.decode(request(dialect, document, options).body, type=dict[str, Any])


def request(dialect: str, document: Any, options: ChatOptions = ABLE) -> ChatRequest:
    return to_chat.request(turn(dialect, document), options)


def of_messages(*content: Any, **fields: Any) -> dict[str, Any]:
    """A Messages request whose user says these blocks."""
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [*content] or "hi"}], **fields}


def of_chat(*content: Any, **fields: Any) -> dict[str, Any]:
    """A Chat request whose user says these parts."""
    return {"model": "m", "messages": [{"role": "user", "content": [*content] or "hi"}], **fields}


def of_responses(*items: Any, **fields: Any) -> dict[str, Any]:
    """A Responses request with these items, and a last word of the user."""
    return {"model": "m", "input": [*items, {"role": "user", "content": "go"}], **fields}


def called(*results: Any, **fields: Any) -> list[dict[str, Any]]:
    """The messages of a tool call and its result, in the Messages dialect."""
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [*results], **fields}
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
