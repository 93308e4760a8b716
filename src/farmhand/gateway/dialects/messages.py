"""The Messages dialect: its reader, and the request for a local server that speaks it too.

Source of the shapes: the provider's Messages API, as the package `anthropic` 2.12 types it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from farmhand.gateway.carries import ChatOptions, ChatRequest
from farmhand.gateway.dialects import to_chat
from farmhand.gateway.dialects.reading import (
    Found,
    content,
    document,
    kind_of,
    object_at,
    objects,
    role_of,
    strings,
)
from farmhand.gateway.turn import BadRequest, Turn

ROLES = frozenset({"assistant", "system", "user"})
#: Block types that mean something beside text, and the attribute of Found that counts them.
_COUNTED = {"container_upload": "documents", "document": "documents", "search_result": "documents"}
#: Blocks of an answer that are no tool's: text, and what a model thought.
_SPOKEN = frozenset({"text", "thinking", "redacted_thinking", "image", "fallback", "compaction", *_COUNTED})


def read(body: bytes, headers: Mapping[str, str]) -> Turn:
    """Return the turn in the body of a Messages request. Raise BadRequest with the JSON path."""
    decoded, fields = document(body)
    found = Found()
    _blocks(content(decoded.get("system"), "system", "text"), "system", found)
    messages = objects(decoded.get("messages"), "messages")
    if not messages:
        raise BadRequest("messages", "there is none")
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        role_of(message, ROLES, path)
        _blocks(content(message.get("content"), f"{path}.content", "text"), f"{path}.content", found)
    for number, tool in enumerate(objects(decoded.get("tools"), "tools")):
        found.offered(kind_of(tool, f"tools[{number}]", "custom"), ("custom",))
    if objects(decoded.get("mcp_servers"), "mcp_servers"):
        found.hosted.append("mcp")
    return found.turn(
        "messages",
        decoded,
        fields,
        headers,
        read=("system", "messages", "tools"),
        limits=("max_tokens",),
        schema=bool(object_at(decoded, "output_config", "").get("format")),
        stop_sequences=bool(strings(decoded.get("stop_sequences"), "stop_sequences")),
        prefill=messages[-1]["role"] == "assistant",
        safeguards=decoded.get("safeguards") is not None,
    )


def _blocks(blocks: list[dict[str, Any]], path: str, found: Found) -> None:
    """Count what is in content blocks, and in a tool's result among them."""
    for number, block in enumerate(blocks):
        at = f"{path}[{number}]"
        kind = kind_of(block, at)
        if kind == "image":
            source = object_at(block, "source", at)
            found.image(source.get("data") if source.get("type") == "base64" else None)
        elif kind in _COUNTED:
            found.documents += 1
        found.tool_history |= kind not in _SPOKEN
        if kind == "tool_result":
            _blocks(content(block.get("content"), f"{at}.content", "text"), f"{at}.content", found)


def native_request(turn: Turn, options: ChatOptions) -> ChatRequest:
    """Return a Messages request for a local server that speaks the dialect: its fields as they came.

    What Chat Completions cannot be given is refused here too: a local server may accept a document, a hosted tool and
    a schema with 200, and lose them (seen in llama.cpp of 2026-10). Raise CannotCarry or BadRequest.
    """
    omitted = to_chat.request(turn, options).omitted
    fields = dict(turn.fields)
    left_out = []
    if "attribution" in omitted:
        left_out.append("attribution")
        fields["system"] = _raw(msgspec.json.decode(fields["system"], type=list[msgspec.Raw])[1:])
    if hosted := [name for name in omitted if name.startswith("tools[")]:
        gone = {int(name[len("tools[") : name.index("]")]) for name in hosted}
        tools = msgspec.json.decode(fields["tools"], type=list[msgspec.Raw])
        fields["tools"] = _raw([tool for number, tool in enumerate(tools) if number not in gone])
    fields["model"] = _raw(options.model)
    fields |= {name: _raw(value) for name, value in options.extra_body.items()}
    return ChatRequest(msgspec.json.encode(fields), (*left_out, *hosted))


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
