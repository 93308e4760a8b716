"""A batch's results in the formats of others: OpenAI's batch output and the provider's Message Batch results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from farmhand.core.errors import from_result
from farmhand.gateway.dialects import answer_chat, answer_messages, answer_responses
from farmhand.gateway.dialects.parts import AnswerPart, ChatUsage, Stop

#: The provider's types of errors, by our codes; all others are its `api_error`.
_TYPES = {
    **dict.fromkeys(("bad_key", "dead_key", "no_key", "key_missing"), "authentication_error"),
    **dict.fromkeys(("billing_error", "budget", "spend_limit"), "billing_error"),
    **dict.fromkeys(("invalid_request", "request_too_large"), "invalid_request_error"),
    **dict.fromkeys(("invalid_task", "invalid_schema", "invalid_file", "too_large"), "invalid_request_error"),
    **dict.fromkeys(("unknown_model", "not_found_error"), "not_found_error"),
    **{name: name for name in ("authentication_error", "invalid_request_error", "overloaded_error")},
    **{name: name for name in ("permission_error", "rate_limit_error", "timeout_error")},
    "timeout": "timeout_error",
}
_STOPS: Mapping[str, Stop] = {
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "refusal": "refusal",
    "stop_sequence": "stop_sequence",
}
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class OthersLines:
    """The form of the journal's results as lines of `form`: openai or anthropic."""

    head = b""

    def __init__(self, form: str) -> None:
        self._openai = form == "openai"

    def row(self, line: bytes) -> bytes:
        """Return the line for a line of the output as JSON."""
        found: dict[str, Any] = msgspec.json.decode(line)
        asked = found.get("input") or {}
        made = _openai(found, asked) if self._openai else _anthropic(found, asked)
        return _ENCODER.encode(made) + b"\n"


def _openai(found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    ident, response, error = found["id"], None, None
    if found["state"] == "succeeded":
        body = msgspec.Raw(_answer(found, str(asked.get("url"))))
        response = {"status_code": 200, "request_id": ident, "body": body}
    else:
        code, message = _why(found)
        error = {"code": "batch_cancelled" if found["state"] == "cancelled" else code, "message": message}
    return {"id": f"batch_req_{ident}", "custom_id": asked["custom_id"], "response": response, "error": error}


def _answer(found: dict[str, Any], url: str) -> bytes:
    parts, stop, usage = _parts(found)
    ident, model, created = found["id"], str(found.get("model") or ""), int(found.get("at") or 0)
    if url.endswith("/responses"):
        return answer_responses.ResponsesWriter(ident, created).whole(model, parts, stop, usage)
    return answer_chat.ChatWriter(ident, created).whole(model, parts, stop, usage)


def _anthropic(found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any]
    if found["state"] == "succeeded":
        parts, stop, usage = _parts(found)
        made = answer_messages.message(found["id"], str(found.get("model") or ""), parts, stop, None, usage)
        result = {"type": "succeeded", "message": msgspec.Raw(made)}
    elif found["state"] == "cancelled":
        result = {"type": "canceled"}
    else:
        code, message = _why(found)
        problem = {"type": _TYPES.get(code, "api_error"), "message": message}
        result = {"type": "errored", "error": {"type": "error", "error": problem, "request_id": found["id"]}}
    return {"custom_id": asked["custom_id"], "result": result}


def _parts(found: dict[str, Any]) -> tuple[list[AnswerPart], Stop, ChatUsage]:
    part = AnswerPart("text")
    structured = found.get("structured")
    part.add(str(found.get("text") or "") if structured is None else _ENCODER.encode(structured).decode())
    used = found.get("usage") or {}
    read = int(used.get("input_tokens") or 0) + int(used.get("cache_creation_input_tokens") or 0)
    usage = ChatUsage(read, int(used.get("cache_read_input_tokens") or 0), int(used.get("output_tokens") or 0))
    # The tool that stands for a schema is ours: the answer ended.
    return [part], _STOPS.get(str(found.get("stop_reason")), "end_turn"), usage


def _why(found: dict[str, Any]) -> tuple[str, str]:
    error = from_result(found)
    return ("", "") if error is None else (error.code, str(error))
