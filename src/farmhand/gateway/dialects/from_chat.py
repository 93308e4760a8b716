"""A local server's Chat Completions answer in the client's dialect: as it streams, or in one piece.

A Chat stream may mix its parts: calls are told apart by `index`, and their arguments come in any order. The other
dialects have one part open at a time. So the parts stand in a row in which they began. The first one streams live, the
others wait until it has ended: text ends when something else begins, a call when its arguments are a whole object, and
all of them at the end of the stream. Nothing that came is left out, and a stream that is cut ends with an error.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects import errors
from farmhand.gateway.dialects.answer_messages import MessagesWriter, message
from farmhand.gateway.dialects.answer_responses import ResponsesWriter
from farmhand.gateway.dialects.events import ChatEvents, broken, choice_of
from farmhand.gateway.dialects.parts import AnswerPart, ChatUsage, Stop, Writer, is_object, usage_of
from farmhand.gateway.dialects.sse import COMMENT, DONE, data
from farmhand.gateway.turn import Dialect, Turn

#: Why a local server's answer ended, in the words of the Messages API.
_STOPS: Mapping[Any, Stop] = {
    "content_filter": "refusal",
    "eos": "end_turn",
    "function_call": "tool_use",
    "length": "max_tokens",
    "stop": "end_turn",
    "tool_calls": "tool_use",
}


class AnswerStream(Protocol):
    """An answer on its way to the client. `usage` is None until the server has counted; `failed` is set by an error."""

    usage: ChatUsage | None
    failed: BackendError | None

    def feed(self, piece: bytes) -> bytes:
        """Return what follows from a piece of the server's body: whole events, or nothing."""

    def end(self) -> bytes:
        """Return what is left at the end of the server's body. A body that was cut ends with an error."""

    def fail(self, error: BackendError) -> bytes:
        """Return the end of an answer that failed on the way."""

    def ping(self) -> bytes:
        """Return what keeps a silent stream alive; nothing after its end."""


def stream(turn: Turn, ident: str = "") -> AnswerStream:
    """Return the translation of a streamed answer to `turn`. `ident` becomes part of its ids."""
    if turn.dialect == "chat":
        options = msgspec.json.decode(turn.fields.get("stream_options", b"null"))
        return _PassedOn(bool(isinstance(options, dict) and options.get("include_usage")))
    ident = ident or os.urandom(12).hex()
    return _Translated(_writer(turn.dialect, ident), ident, turn)


def answer(turn: Turn, body: bytes, ident: str = "") -> tuple[bytes, ChatUsage | None]:
    """Return a whole answer in the client's dialect, and its usage. Raise BackendError if it is not a whole answer."""
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise broken("no JSON object")
    if found.get("error"):
        raise errors.from_server(200, body)
    choice = choice_of(found)
    if choice is None:
        raise broken("no choice")
    usage = usage_of(found.get("usage"))
    if turn.dialect == "chat":
        return body, usage
    ident = ident or os.urandom(12).hex()
    made = _Translated(_writer(turn.dialect, ident), ident, turn)
    made.take(choice.get("message"))
    made.met(choice)
    made.finish = choice.get("finish_reason")
    stop, sequence = made.stop()
    parts = list(made.row)
    for part in parts:
        _settle(part)
        if part.kind == "tool" and not (part.name and is_object(part.text)):
            raise broken("a tool call whose arguments are no JSON object")
    model = _model(found, turn)
    counted = usage or ChatUsage()
    if turn.dialect == "messages":
        return message(ident, model, parts, stop, sequence, counted), usage
    return ResponsesWriter(ident, int(time.time())).whole(model, parts, stop, counted), usage


def _writer(dialect: Dialect, ident: str) -> Writer:
    return MessagesWriter(ident) if dialect == "messages" else ResponsesWriter(ident, int(time.time()))


class _PassedOn(ChatEvents):
    """A stream for a client of the same dialect: each event as it came. The usage that only we asked for stays here."""

    def __init__(self, usage_asked: bool) -> None:
        super().__init__()
        self._usage_asked = usage_asked

    def ping(self) -> bytes:
        """Return a comment."""
        return b"" if self._ended else COMMENT

    def _chunk(self, raw: bytes, chunk: dict[str, Any], choice: dict[str, Any] | None) -> None:
        if choice is not None or self._usage_asked or not chunk.get("usage"):
            self._out.append(data(raw))

    def _finish(self) -> None:
        self._out.append(DONE)

    def _fail(self, error: BackendError) -> None:
        self._out.append(data(errors.document("chat", error.status, str(error), error.code)))


class _Translated(ChatEvents):
    """A stream for a client of another dialect."""

    def __init__(self, writer: Writer, ident: str, turn: Turn) -> None:
        super().__init__()
        self._writer, self._ident, self._turn = writer, ident, turn
        self._stops = _stop_sequences(turn)
        self._began = False
        #: The parts that have not ended, in the order in which they began.
        self.row: deque[AnswerPart] = deque()
        #: The calls by their index and by their id, and the last one.
        self._calls: dict[int | str, AnswerPart] = {}
        self._call_ids: set[str] = set()
        self._last: AnswerPart | None = None
        self._sequence: str | None = None

    def ping(self) -> bytes:
        """Return a ping. It may be the first event: then the answer begins with it, as clients expect."""
        if self._ended:
            return b""
        self._begin(self._turn.model)
        self._out.append(self._writer.ping())
        return self._sent()

    def take(self, delta: Any) -> None:
        """Take what a chunk or a whole answer brings: text, thinking and calls. Raise BackendError for other things."""
        delta = {} if delta is None else delta
        if not isinstance(delta, dict):
            raise broken("a delta that is no object")
        self._say("thinking", delta.get("reasoning_content") or delta.get("reasoning"))
        self._say("text", delta.get("content"))
        self._say("text", delta.get("refusal"))
        calls = delta.get("tool_calls") or []
        if old := delta.get("function_call"):
            calls = [{"index": 0, "function": old}]
        if not isinstance(calls, list):
            raise broken("tool calls that are no list")
        for call in calls:
            self._call(call)

    def met(self, choice: Mapping[str, Any]) -> None:
        """Remember a stop sequence that the answer met, under vLLM's or sglang's name for it."""
        for name in ("stop_reason", "matched_stop") if self._stops else ():
            if isinstance(found := choice.get(name), str) and found in self._stops:
                self._sequence = found

    def stop(self) -> tuple[Stop, str | None]:
        """Return why the answer ended, and the stop sequence that it met. Raise BackendError for an unknown reason."""
        stop = _STOPS.get(self.finish) if isinstance(self.finish, str) else None
        if stop is None:
            raise BackendError(f"the local server ended its answer with {str(self.finish)[:80]!r}")
        if stop in {"end_turn", "tool_use"}:
            # Some servers say "stop" after a call, and some "tool_calls" without one.
            stop = "tool_use" if self._last else "stop_sequence" if self._sequence is not None else "end_turn"
        return stop, self._sequence if stop == "stop_sequence" else None

    def _chunk(self, raw: bytes, chunk: dict[str, Any], choice: dict[str, Any] | None) -> None:
        self._begin(_model(chunk, self._turn))
        if choice is not None:
            self.take(choice.get("delta") or self._unsaid(choice.get("message")))
            self.met(choice)
        self._advance()

    def _unsaid(self, message: Any) -> Any:
        """Return what a last event with the whole message brings: all, or the arguments that have not come yet."""
        if not isinstance(message, dict) or not (self.row or self._last):
            return message
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise broken("tool calls that are no list of objects")
        calls = [{"index": index, **call} for index, call in enumerate(calls)]
        return {"tool_calls": [call for call in calls if (known := self._known(call)) is None or not known.text]}

    def _finish(self) -> None:
        stop, sequence = self.stop()
        self._begin(self._turn.model)
        self._advance(last=True)
        self._out.append(self._writer.finish(stop, sequence, self.usage or ChatUsage()))

    def _fail(self, error: BackendError) -> None:
        self._begin(self._turn.model)
        self._out.append(self._writer.fail(error))

    def _begin(self, model: str) -> None:
        if not self._began:
            self._began = True
            self._out.append(self._writer.start(model))

    def _say(self, kind: Literal["text", "thinking"], words: Any) -> None:
        if words is None or words == "":
            return
        if not isinstance(words, str):
            raise broken(f"a {kind} that is no text")
        if not self.row or self.row[-1].kind != kind:
            self.row.append(AnswerPart(kind))
        self.row[-1].add(words)

    def _call(self, call: Any) -> None:
        """Take a fragment of a tool call."""
        function = (call.get("function") or {}) if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise broken("a tool call that is no object")
        arguments = function.get("arguments") or ""
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        name = function.get("name") or ""
        if not (isinstance(name, str) and isinstance(arguments, str)):
            raise broken("a tool call whose name or arguments are no text")
        part = self._known(call)
        if part is None or (name and arguments and part.complete()):
            part = self._new(call)
        part.name = part.name or name
        if part.ended and arguments.strip():
            raise broken("arguments after the end of a tool call")
        part.add(arguments)
        self._last = part

    def _known(self, call: Mapping[str, Any]) -> AnswerPart | None:
        """Return the call that a fragment belongs to: by its index, else by its id, else the last one.

        Some servers give each call the index 0, or none: then another id with a name begins another call.
        """
        index, ident = call.get("index"), call.get("id") or ""
        if not (isinstance(index, int | None) and isinstance(ident, str)):
            raise broken("a tool call whose index is no number or whose id is no text")
        known = self._calls.get(index) if index is not None else self._calls.get(ident) if ident else self._last
        function = call.get("function")
        named = isinstance(function, dict) and function.get("name")
        if known is not None and ident and known.given and named and ident != known.given:
            return self._calls.get(ident)
        return known

    def _new(self, call: Mapping[str, Any]) -> AnswerPart:
        given = call.get("id") or ""
        unique = given or f"call_{self._ident}_{len(self._call_ids)}"
        while unique in self._call_ids:
            unique += "_"
        self._call_ids.add(unique)
        part = AnswerPart("tool", unique)
        part.given = given
        for key in (call.get("index"), given or None):
            if key is not None:
                self._calls[key] = part
        self.row.append(part)
        return part

    def _advance(self, *, last: bool = False) -> None:
        """Send what the parts at the head of the row have to say, and their ends."""
        while self.row:
            part = self.row[0]
            if part.kind == "tool" and not part.name:
                if last:
                    raise broken("a tool call without a name")
                return
            self._out += part.said(self._writer)
            if not last and not (len(self.row) > 1 and part.complete()):
                return
            if missing := _settle(part):
                self._out.append(self._writer.add(part, missing))
            self._out.append(self._writer.close(part))
            part.ended = True
            self.row.popleft()


def _settle(part: AnswerPart) -> str:
    try:
        return part.settle()
    except (ValueError, RecursionError):
        raise broken("a tool call whose arguments are no JSON object") from None


def _model(found: Mapping[str, Any], turn: Turn) -> str:
    """Return the model that answered, as the server names it; else the one that was asked for."""
    model = found.get("model")
    return model if isinstance(model, str) and model else turn.model


def _stop_sequences(turn: Turn) -> tuple[str, ...]:
    found = msgspec.json.decode(turn.fields.get("stop_sequences", b"null"))
    return tuple(found) if isinstance(found, list) else ()
