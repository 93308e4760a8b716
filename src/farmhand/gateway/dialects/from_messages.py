"""An answer of the Messages API in the client's dialect: as it streams, or in one piece.

Its blocks come one after another, so each is passed on as it comes. A stream that is cut ends with an error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects import errors
from farmhand.gateway.dialects.answer_chat import ChatWriter
from farmhand.gateway.dialects.answer_responses import ResponsesWriter
from farmhand.gateway.dialects.events import EventStream, broken
from farmhand.gateway.dialects.parts import AnswerPart, ChatUsage, Stop
from farmhand.gateway.turn import Turn

#: Who sends what is read here: the API, or the CLI that passes its events on.
_API = "the API"
_STOPS: Mapping[str, Stop] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "refusal": "refusal",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
}
#: Blocks that a client of another dialect is not shown: nobody could read them.
_UNSHOWN = frozenset({"fallback", "redacted_thinking"})
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_IGNORED = frozenset({"signature_delta"})


def stream(turn: Turn, ident: str = "") -> MessagesTranslated:
    """Return the translation of a streamed answer to `turn`. `ident` becomes part of its ids."""
    return MessagesTranslated(_writer(turn, ident), turn)


def answer(turn: Turn, body: bytes, ident: str = "") -> tuple[bytes, ChatUsage | None]:
    """Return a whole answer in the client's dialect, and its usage. Raise BackendError if it is none."""
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("content"), list):
        raise errors.instead(found.get("error") if isinstance(found, dict) else None)
    parts = []
    for block in found["content"]:
        if (part := _part(block)) is None:
            continue
        if part.kind == "thinking" and not part.text:
            continue
        if part.kind == "tool":
            part.add(msgspec.json.encode(block.get("input") or {}).decode())
            part.fresh()
        parts.append(part)
    usage = _UsageSeen()
    usage.take(found.get("usage"))
    writer, stop = _writer(turn, ident), _stop(found.get("stop_reason"))
    return writer.whole(_model(found, turn), parts, stop, usage.usage), usage.usage


def _writer(turn: Turn, ident: str) -> ChatWriter | ResponsesWriter:
    ident, now = ident or os.urandom(12).hex(), int(time.time())
    if turn.dialect == "responses":
        return ResponsesWriter(ident, now)
    options = msgspec.json.decode(turn.fields.get("stream_options", b"null"))
    return ChatWriter(ident, now, usage_asked=isinstance(options, dict) and bool(options.get("include_usage")))


class _UsageSeen:
    """The usage of an answer: the reports of a stream are cumulative, and later ones may leave figures out."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def take(self, told: Any) -> None:
        """Add a report."""
        if isinstance(told, dict):
            self._seen |= {name: value for name, value in told.items() if isinstance(value, int)}

    @property
    def usage(self) -> ChatUsage:
        """Return the figures as Chat Completions counts: what was written to the cache was read by the model."""
        seen = self._seen
        read = seen.get("input_tokens", 0) + seen.get("cache_creation_input_tokens", 0)
        return ChatUsage(read, seen.get("cache_read_input_tokens", 0), seen.get("output_tokens", 0))


class MessagesTranslated(EventStream):
    """A stream for a client of another dialect; see `AnswerStream`."""

    sender = _API

    def __init__(self, writer: ChatWriter | ResponsesWriter, turn: Turn) -> None:
        super().__init__()
        self._writer, self._model = writer, turn.model
        self._figures = _UsageSeen()
        self._part: AnswerPart | None = None
        self._stop_reason: Any = None
        self._began = False

    def end(self) -> bytes:
        """Return what is left at the end of the body."""
        if not self._ended:
            self._take(self._decoder.flush())
        if not self._ended and self._stop_reason is not None and self._part is None:
            self._finish()
        if not self._ended:
            return self.fail(BackendError("the API's stream ended before its answer did"))
        return self._sent()

    def ping(self) -> bytes:
        """Return what keeps a silent stream alive."""
        if self._ended:
            return b""
        self._begin()
        self._out.append(self._writer.ping())
        return self._sent()

    def _fail(self, error: BackendError) -> None:
        self._begin()
        self._out.append(self._writer.fail(error))

    def _event(self, raw: bytes) -> None:
        event = self._decoded(raw)
        match event.get("type"):
            case "message_start":
                message = event.get("message")
                message = message if isinstance(message, dict) else {}
                self._figures.take(message.get("usage"))
                if isinstance(model := message.get("model"), str) and model:
                    self._model = model
                self._begin()
            case "content_block_start":
                self._open(event.get("content_block"))
            case "content_block_delta":
                self._delta(event.get("delta"))
            case "content_block_stop":
                self._close()
            case "message_delta":
                self._figures.take(event.get("usage"))
                delta = event.get("delta")
                if isinstance(delta, dict) and delta.get("stop_reason"):
                    self._stop_reason = delta["stop_reason"]
            case "message_stop":
                self._finish()
            case "error":
                error = event.get("error")
                message = error.get("message") if isinstance(error, dict) else None
                raise BackendError(str(message or "the API ended its answer with an error")[:400])

    def _begin(self) -> None:
        if not self._began:
            self._began = True
            self._out.append(self._writer.start(self._model))

    def _open(self, block: Any) -> None:
        self._begin()
        self._close()
        self._part = _part(block)
        self._say()

    def _say(self) -> None:
        """Send what is new of the open block. Thinking that the API does not show begins no part."""
        part = self._part
        if part is None or (part.kind == "thinking" and not part.text):
            return
        self._out += part.said(self._writer)

    def _delta(self, delta: Any) -> None:
        kind = delta.get("type") if isinstance(delta, dict) else None
        if kind in _IGNORED or self._part is None:
            return
        text = delta.get(_TEXTS[kind]) if kind in _TEXTS else None
        if not isinstance(text, str):
            raise _broken(f"a delta of type {str(kind)[:40]!r}")
        self._part.add(text)
        self._say()

    def _close(self) -> None:
        part, self._part = self._part, None
        if part is None or not part.opened:
            return
        try:
            missing = part.settle()
        except (ValueError, RecursionError):
            raise _broken("a tool call whose arguments are no JSON object") from None
        if missing:
            self._out.append(self._writer.add(part, missing))
        self._out.append(self._writer.close(part))

    def _finish(self) -> None:
        self._close()
        self._begin()
        stop = _stop(self._stop_reason)
        self._ended = True
        self.usage = self._figures.usage
        self._out.append(self._writer.finish(stop, None, self.usage))


def _part(block: Any) -> AnswerPart | None:
    """Return a block as a part; None for one that is not shown. Raise BackendError for one that is not known."""
    kind = block.get("type") if isinstance(block, dict) else None
    if kind in _UNSHOWN:
        return None
    if kind == "tool_use":
        return AnswerPart("tool", str(block.get("id") or ""), str(block.get("name") or ""))
    if kind not in ("text", "thinking"):
        raise _broken(f"a block of type {str(kind)[:40]!r}")
    part = AnswerPart("text" if kind == "text" else "thinking")
    part.add(str(block.get(kind) or ""))
    return part


def _stop(reason: Any) -> Stop:
    stop = _STOPS.get(reason) if isinstance(reason, str) else None
    if stop is None:
        raise BackendError(f"the API ended its answer with {str(reason)[:80]!r}")
    return stop


def _model(found: Mapping[str, Any], turn: Turn) -> str:
    model = found.get("model")
    return model if isinstance(model, str) and model else turn.model


def _broken(what: str) -> BackendError:
    return broken(what, _API)
