"""The parts that answers are made of, and the form of a case."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.messages_api.verbatim import Ending, Verbatim

TEXT = "hello wörld 🐄"
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
USAGE: dict[str, Any] = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 7,
    "cache_read_input_tokens": 9,
    "output_tokens": 1,
}
#: Fresh input, written to the cache, read from it, output: what the plain answer has.
TOKENS = (100, 7, 9, 12)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
#: How often a task is tried that gets no whole answer.
ATTEMPTS = 3


def event(kind: str, **fields: Any) -> bytes:
    """One event as the API writes it; what JSON cannot hold as UTF-8 is escaped."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def start(usage: Any = USAGE, *, name: Any = "msg_1", **more: Any) -> bytes:
    message = {"id": name, "type": "message", "role": "assistant", "content": [], "model": "m", **more}
    return event("message_start", message=message | ({"usage": usage} if usage is not ... else {}))


def block(content: Any, index: Any = 0) -> bytes:
    return event("content_block_start", index=index, content_block=content)


def delta(content: Any, index: Any = 0) -> bytes:
    return event("content_block_delta", index=index, delta=content)


def text(words: Any, index: Any = 0) -> bytes:
    return delta({"type": "text_delta", "text": words}, index)


def partial(words: Any, index: Any = 0) -> bytes:
    return delta({"type": "input_json_delta", "partial_json": words}, index)


def close(index: int = 0) -> bytes:
    return event("content_block_stop", index=index)


def end(usage: Any = ..., stop_reason: Any = "end_turn") -> bytes:
    told = {"output_tokens": 12} if usage is ... else usage
    fields: dict[str, Any] = {"delta": {"stop_reason": stop_reason, "stop_sequence": None}}
    return event("message_delta", **fields | ({} if told is None else {"usage": told}))


OPEN = block({"type": "text", "text": ""})
HELLO = OPEN + text("hello ") + text("wörld 🐄") + close()
STOP = event("message_stop")
PLAIN = start() + HELLO + end() + STOP
TOOL = block({"type": "tool_use", "id": "toolu_1", "name": "answer", "input": {}})
ERROR = event("error", error={"type": "overloaded_error", "message": "Overloaded"})


def message(content: Any = ..., usage: Any = ..., **more: Any) -> bytes:
    """A whole message, as the API sends it where no stream was asked for."""
    told = USAGE | {"output_tokens": 12} if usage is ... else usage
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"}
    return json.dumps(
        body | {"content": [{"type": "text", "text": TEXT}] if content is ... else content, "usage": told} | more
    ).encode()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One answer, and what becomes of the task.

    `requests` is how often the API is asked in all, `tokens` what is counted for one answer (None: whatever), `factor`
    what its price is of the usual (None: the cost is not known, "any": whatever), `code` the error of a task that
    fails. `schema`: the task asks for SCHEMA.
    """

    name: str
    source: str
    body: bytes = PLAIN
    headers: dict[str, str] = field(default_factory=lambda: SSE)
    ending: Ending = "chunked"
    piece: int = 0
    state: str = "succeeded"
    text: str = TEXT
    schema: bool = False
    structured: Any = None
    stop_reason: str = "end_turn"
    code: str = ""
    requests: int = 1
    tokens: tuple[int, int, int, int] | None = TOKENS
    factor: str | None = "1"
    uncertain: int = 0

    @property
    def answer(self) -> Verbatim:
        """The answer, for the loopback API."""
        return Verbatim(body=self.body, headers=self.headers, ending=self.ending, piece=self.piece)
