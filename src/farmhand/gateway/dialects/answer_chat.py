"""An answer of the Messages API as Chat Completions has it: a stream of chunks, or one completion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects import errors
from farmhand.gateway.dialects.parts import AnswerPart, ChatUsage, Stop
from farmhand.gateway.dialects.sse import COMMENT, DONE, data

_FINISH: Mapping[Stop, str] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "refusal": "content_filter",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}


class ChatWriter:
    """Writes the chunks of a stream. `ident` is the end of the id, `created` the time in seconds.

    `usage_asked`: the client wants the usage, which comes in a last chunk without a choice.
    """

    def __init__(self, ident: str, created: int, *, usage_asked: bool = False) -> None:
        self._base: dict[str, Any] = {"id": f"chatcmpl-{ident}", "object": "chat.completion.chunk", "created": created}
        self._usage_asked = usage_asked
        self._calls = 0

    def start(self, model: str) -> bytes:
        """Begin the answer."""
        self._base["model"] = model
        return self._chunk({"role": "assistant", "content": ""})

    def open(self, part: AnswerPart) -> bytes:
        """Begin a part: only a call has a beginning."""
        if part.kind != "tool":
            return b""
        call = {"index": self._calls, "id": part.ident, "type": "function"}
        return self._chunk({"tool_calls": [call | {"function": {"name": part.name, "arguments": ""}}]})

    def add(self, part: AnswerPart, text: str) -> bytes:
        """Go on with the open part."""
        if part.kind == "tool":
            return self._chunk({"tool_calls": [{"index": self._calls, "function": {"arguments": text}}]})
        return self._chunk({"content" if part.kind == "text" else "reasoning_content": text})

    def close(self, part: AnswerPart) -> bytes:
        """End the open part."""
        self._calls += part.kind == "tool"
        return b""

    def finish(self, stop: Stop, sequence: str | None, usage: ChatUsage) -> bytes:
        """End the answer."""
        found = self._chunk({}, _FINISH[stop])
        if self._usage_asked:
            found += data(self._base | {"choices": [], "usage": _usage(usage)})
        return found + DONE

    def fail(self, error: BackendError) -> bytes:
        """End the answer with an error."""
        return data(errors.document("chat", error.status, str(error), error.code))

    def ping(self) -> bytes:
        """Return a comment."""
        return COMMENT

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return data(self._base | {"choices": [choice]})

    def whole(self, model: str, parts: Iterable[AnswerPart], stop: Stop, usage: ChatUsage) -> bytes:
        """Return the answer in one piece."""
        said: dict[str, list[str]] = {"text": [], "thinking": []}
        calls = []
        for part in parts:
            if part.kind == "tool":
                function = {"name": part.name, "arguments": part.text}
                calls.append({"id": part.ident, "type": "function", "function": function})
            else:
                said[part.kind].append(part.text)
        text = "".join(said["text"])
        message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text, "refusal": None}
        if said["thinking"]:
            message["reasoning_content"] = "".join(said["thinking"])
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH[stop]}
        whole = {"object": "chat.completion", "model": model, "choices": [choice], "usage": _usage(usage)}
        return msgspec.json.encode(self._base | whole)


def _usage(usage: ChatUsage) -> dict[str, Any]:
    prompt = usage.read + usage.cached
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.written,
        "total_tokens": prompt + usage.written,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }
