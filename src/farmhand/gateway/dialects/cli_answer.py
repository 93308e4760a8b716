"""What the CLI streams of a model's answer, as an answer of the Messages API: its events, or the whole message.

A turn is one answer of text. What is more is an error: a second answer, which the CLI asks for by itself when the first
was cut, or a tool. Thinking is left out unless the client asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from farmhand.core.task import Usage
from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects.sse import event
from farmhand.gateway.turn import Turn

_TEXT = frozenset({"text", "thinking", "redacted_thinking"})
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class CliAnswer:
    """The answer to `turn`. `take` gives what a streaming client gets at once, `end` what all of them get last."""

    def __init__(self, turn: Turn) -> None:
        self._streamed = turn.streamed
        self._thinks = turn.dialect == "messages" and _asked_to_think(turn)
        self._usage: dict[str, int] = {}
        #: The message: None before it began.
        self._message: dict[str, Any] | None = None
        #: The CLI's number of a block → ours, and None for one that is left out.
        self._blocks: dict[Any, int | None] = {}
        self._last: dict[str, Any] = {}
        #: Why the message ended; "" before it did.
        self.stop = ""
        #: Whether the message is whole.
        self.whole = False

    @property
    def begun(self) -> bool:
        """Return whether the model has begun to answer."""
        return self._message is not None

    @property
    def usage(self) -> Usage:
        """Return the tokens that the stream has named so far."""
        names = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        return Usage(requests=int(self.begun), **{name: self._usage.get(name, 0) for name in names})

    @property
    def text(self) -> str:
        """Return the text so far."""
        blocks = self._message["content"] if self._message is not None else []
        return "".join(str(block["text"]) for block in blocks if block.get("type") == "text")

    def take(self, value: Any) -> bytes:
        """Return what follows for the client from an event of the model's stream. Raise BackendError."""
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "message_start":
            return self._begin(value.get("message"))
        if self._message is None or self.whole:
            raise _odd(f"{str(kind)[:40]} outside an answer")
        if kind in ("content_block_start", "content_block_delta", "content_block_stop"):
            return self._part(kind, value)
        if kind == "message_delta":
            self._count(value.get("usage"))
            delta = value.get("delta")
            self._message |= delta if isinstance(delta, dict) else {}
            self.stop = str(self._message.get("stop_reason") or "end_turn")
            self._last = value
        elif kind == "message_stop":
            self.whole = True
        return b""

    def end(self) -> bytes:
        """Return the rest of an answer that has ended as it should; of a plain one all."""
        message = self._message
        if message is None or not self.whole:
            raise _odd("the end of an answer before its beginning")
        if self._streamed:
            last = self._last or {"type": "message_delta", "delta": {"stop_reason": self.stop}}
            return event(last) + event({"type": "message_stop"})
        return msgspec.json.encode(message | {"usage": message.get("usage", {}) | self._usage})

    def _begin(self, message: Any) -> bytes:
        if self._message is not None:
            raise _odd("a second answer")
        if not isinstance(message, dict):
            raise _odd("an answer that is no object")
        self._message = message | {"content": []}
        self._count(message.get("usage"))
        if not self._streamed:
            return b""
        return event({"type": "message_start", "message": self._message})

    def _part(self, kind: str, value: dict[str, Any]) -> bytes:
        number = value.get("index")
        if kind == "content_block_start":
            block = value.get("content_block")
            name = block.get("type") if isinstance(block, dict) else None
            if name not in _TEXT or not isinstance(block, dict) or self._message is None:
                raise _odd(f"a block of type {str(name)[:40]!r}")
            kept = name == "text" or self._thinks
            self._blocks[number] = len(self._message["content"]) if kept else None
            if kept:
                self._message["content"].append(dict(block))
        ours = self._blocks.get(number, -1)
        if ours is None:
            return b""
        if ours < 0 or self._message is None:
            raise _odd("a part of a block that never began")
        delta = value.get("delta")
        if kind == "content_block_delta" and isinstance(delta, dict):
            name = _DELTAS.get(str(delta.get("type")), "")
            piece = delta.get(name)
            if name and isinstance(piece, str):
                block = self._message["content"][ours]
                block[name] = str(block.get(name) or "") + piece
        return event(value | {"index": ours}) if self._streamed else b""

    def _count(self, usage: Any) -> None:
        """Take the counts of a usage; those of the end replace those of the beginning."""
        if isinstance(usage, dict):
            whole = {k: v for k, v in usage.items() if isinstance(v, int) and not isinstance(v, bool) and v >= 0}
            self._usage |= whole


def _asked_to_think(turn: Turn) -> bool:
    asked: Any = msgspec.json.decode(turn.fields.get("thinking", b"null"))
    return isinstance(asked, Mapping) and asked.get("type") in ("adaptive", "enabled")


def _odd(what: str) -> BackendError:
    return BackendError(f"the subscription's CLI sent {what}")
