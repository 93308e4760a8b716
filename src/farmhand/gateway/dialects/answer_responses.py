"""A local model's answer as the Responses API writes it: a stream of events, or one response."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects.parts import AnswerPart, ChatUsage, Stop
from farmhand.gateway.dialects.sse import COMMENT, event

_INCOMPLETE: dict[str, str] = {"max_tokens": "max_output_tokens", "refusal": "content_filter"}


class ResponsesWriter:
    """Writes the events of a Responses stream. `ident` is the end of the ids, `created` the time in seconds."""

    def __init__(self, ident: str, created: int) -> None:
        self._ident, self._created = ident, created
        self._model = ""
        self._number = 0
        self._output: list[dict[str, Any]] = []

    def start(self, model: str) -> bytes:
        """Begin the response."""
        self._model = model
        response = self._response("in_progress", None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def open(self, part: AnswerPart) -> bytes:
        """Begin an item, and its one content part."""
        found = self._event("response.output_item.added", item=self._item(part, "in_progress"))
        if part.kind == "tool":
            return found
        return found + self._within(part, "response.content_part.added", part=_content(part, ""))

    def add(self, part: AnswerPart, text: str) -> bytes:
        """Go on with the open item."""
        return self._within(part, f"{_EVENTS[part.kind]}.delta", delta=text, **_probabilities(part))

    def close(self, part: AnswerPart) -> bytes:
        """End the open item."""
        text = part.text
        if part.kind == "tool":
            found = self._within(part, f"{_EVENTS['tool']}.done", name=part.name, arguments=text)
        else:
            found = self._within(part, f"{_EVENTS[part.kind]}.done", text=text, **_probabilities(part))
            found += self._within(part, "response.content_part.done", part=_content(part, text))
        item = self._item(part, "completed")
        found += self._event("response.output_item.done", item=item)
        self._output.append(item)
        return found

    def finish(self, stop: Stop, sequence: str | None, usage: ChatUsage) -> bytes:
        """End the response."""
        response = self._response("incomplete" if stop in _INCOMPLETE else "completed", usage, stop)
        return self._event(f"response.{response['status']}", response=response)

    def fail(self, error: BackendError) -> bytes:
        """End the response with an error."""
        response = self._response("failed", None)
        response["error"] = {"code": _code(error), "message": str(error)}
        return self._event("response.failed", response=response)

    def ping(self) -> bytes:
        """Return a comment."""
        return COMMENT

    def whole(self, model: str, parts: Iterable[AnswerPart], stop: Stop, usage: ChatUsage) -> bytes:
        """Return the response in one piece."""
        self._model = model
        for part in parts:
            self._output.append(self._item(part, "completed"))
        status = "incomplete" if stop in _INCOMPLETE else "completed"
        return msgspec.json.encode(self._response(status, usage, stop))

    def _event(self, kind: str, **fields: Any) -> bytes:
        if "item" in fields:
            fields["output_index"] = len(self._output)
        found = event({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return found

    def _within(self, item: AnswerPart, kind: str, **fields: Any) -> bytes:
        """Return an event about the open item."""
        place: dict[str, Any] = {"item_id": self._id(item), "output_index": len(self._output)}
        if item.kind != "tool":
            place["content_index"] = 0
        return self._event(kind, **place, **fields)

    def _id(self, part: AnswerPart) -> str:
        kind = {"text": "msg", "thinking": "rs", "tool": "fc"}[part.kind]
        return f"{kind}_{self._ident}_{len(self._output)}"

    def _item(self, part: AnswerPart, status: str) -> dict[str, Any]:
        done = status == "completed"
        if part.kind == "tool":
            named = {"call_id": part.ident, "name": part.name, "arguments": part.text if done else ""}
            return {"id": self._id(part), "type": "function_call", "status": status, **named}
        content = [_content(part, part.text)] if done else []
        if part.kind == "thinking":
            return {"id": self._id(part), "type": "reasoning", "summary": [], "content": content}
        return {"id": self._id(part), "type": "message", "status": status, "role": "assistant", "content": content}

    def _response(self, status: str, usage: ChatUsage | None, stop: Stop = "end_turn") -> dict[str, Any]:
        return {
            "id": f"resp_{self._ident}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": _INCOMPLETE[stop]} if stop in _INCOMPLETE else None,
            "instructions": None,
            "metadata": {},
            "model": self._model,
            "output": list(self._output),
            "parallel_tool_calls": True,
            "store": False,
            "tool_choice": "auto",
            "tools": [],
            "usage": None if usage is None else _usage(usage),
        }


_EVENTS = {"text": "response.output_text", "thinking": "response.reasoning_text"} | {
    "tool": "response.function_call_arguments"
}


def _probabilities(part: AnswerPart) -> dict[str, Any]:
    return {"logprobs": []} if part.kind == "text" else {}


def _content(part: AnswerPart, text: str) -> dict[str, Any]:
    if part.kind == "thinking":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: ChatUsage) -> dict[str, Any]:
    prompt = usage.read + usage.cached
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + usage.written,
    }


def _code(error: BackendError) -> str:
    """Return the code by which clients know an error; codex repeats a request at most others."""
    if error.code == "context_length_exceeded":
        return error.code
    return "server_error" if error.status >= 500 else "invalid_prompt"
