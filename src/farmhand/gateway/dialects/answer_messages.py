"""A local model's answer as the Messages API writes it: a stream of events, or one message.

Thinking blocks have an empty signature: they are shown, and no model is given them again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects import errors
from farmhand.gateway.dialects.parts import AnswerPart, ChatUsage, Stop
from farmhand.gateway.dialects.sse import event

_DELTAS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")} | {
    "tool": ("input_json_delta", "partial_json")
}


class MessagesWriter:
    """Writes the events of a Messages stream. `ident` is the end of the message's id."""

    def __init__(self, ident: str) -> None:
        self._ident = ident
        self._index = -1

    def start(self, model: str) -> bytes:
        """Begin the message. Clients need a model and a usage there."""
        message = _message(self._ident, model, [], None, None, ChatUsage())
        return event({"type": "message_start", "message": message})

    def open(self, part: AnswerPart) -> bytes:
        """Begin a block."""
        self._index += 1
        block = _block(part, "", {})
        return event({"type": "content_block_start", "index": self._index, "content_block": block})

    def add(self, part: AnswerPart, text: str) -> bytes:
        """Go on with the open block."""
        kind, name = _DELTAS[part.kind]
        return event({"type": "content_block_delta", "index": self._index, "delta": {"type": kind, name: text}})

    def close(self, part: AnswerPart) -> bytes:
        """End the open block."""
        return event({"type": "content_block_stop", "index": self._index})

    def finish(self, stop: Stop, sequence: str | None, usage: ChatUsage) -> bytes:
        """End the message."""
        delta = {"stop_reason": stop, "stop_sequence": sequence}
        return event({"type": "message_delta", "delta": delta, "usage": _usage(usage)}) + event(
            {"type": "message_stop"}
        )

    def fail(self, error: BackendError) -> bytes:
        """End the stream with an error."""
        return event(errors.document("messages", error.status, str(error)))

    def ping(self) -> bytes:
        """Return an event that says nothing."""
        return event({"type": "ping"})


def message(
    ident: str, model: str, parts: Iterable[AnswerPart], stop: Stop, sequence: str | None, usage: ChatUsage
) -> bytes:
    """Return a whole message. The arguments of its tool calls must be JSON objects."""
    blocks = [_block(part, part.text, msgspec.Raw(part.text.encode())) for part in parts]
    return msgspec.json.encode(_message(ident, model, blocks, stop, sequence, usage))


def _block(part: AnswerPart, text: str, arguments: Any) -> dict[str, Any]:
    if part.kind == "tool":
        return {"type": "tool_use", "id": part.ident, "name": part.name, "input": arguments}
    if part.kind == "thinking":
        return {"type": "thinking", "thinking": text, "signature": ""}
    return {"type": "text", "text": text}


def _message(
    ident: str, model: str, blocks: list[dict[str, Any]], stop: Stop | None, sequence: str | None, usage: ChatUsage
) -> dict[str, Any]:
    return {
        "id": f"msg_{ident}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": sequence,
        "usage": _usage(usage),
    }


def _usage(usage: ChatUsage) -> dict[str, int]:
    return {
        "input_tokens": usage.read,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.written,
    }
