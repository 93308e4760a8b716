"""Errors in the words of each dialect, and what a local server's error means.

The wording is an interface: Claude Code compacts at `prompt is too long: 15024 tokens > 4096 maximum`, and retries
without `safeguards` if a 400 names them [seen in 2.1.332].
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects.parts import is_object
from farmhand.gateway.turn import Dialect
from farmhand.meter.errors import STATUS_CODE

#: The type of a Messages error, by status. Any other is an `api_error`.
_TYPES = STATUS_CODE | {400: "invalid_request_error", 503: "overloaded_error"}
#: How servers say that a prompt does not fit: its tokens, if they say them, and the most there may be.
_TOO_LONG = (
    # vLLM, and servers that use its words
    re.compile(r"maximum context length is (?P<most>\d+) tokens.*?(?P<tokens>\d+) in the messages"),
    re.compile(r"maximum context length is (?P<most>\d+)(?: tokens)?.*?(?P<tokens>\d+) (?:input )?tokens"),
    re.compile(r"prompt \(length (?P<tokens>\d+)\) is longer than the maximum model length of (?P<most>\d+)"),
    # sglang
    re.compile(r"input \((?P<tokens>\d+) tokens\) is longer than the model's context length \((?P<most>\d+) tokens\)"),
    # LM Studio
    re.compile(r"first (?P<tokens>\d+) tokens when context.*?context length of only (?P<most>\d+) tokens"),
)
_NO_IMAGES = re.compile(r"image.*not support|not support.*image|not a multimodal|mmproj", re.I)
#: What a model's template raises, and what llama.cpp says of arguments in the conversation that are no JSON.
_TEMPLATE = re.compile(r"jinja|chat template|tool call arguments", re.I)
_MOST_BYTES = 64 * 1024


def body(dialect: Dialect, status: int, message: str, code: str | None = None) -> bytes:
    """Return an error's body in a dialect."""
    return msgspec.json.encode(document(dialect, status, message, code))


def document(dialect: Dialect, status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """Return an error in a dialect, as it stands in a body or in a stream."""
    if dialect == "messages":
        return {"type": "error", "error": {"type": _TYPES.get(status, "api_error"), "message": message}}
    kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def instead(error: object) -> BackendError:
    """Return the error of an answer with the status 200 that is no message; `error` is its field of that name."""
    words = error.get("message") if isinstance(error, dict) else None
    return BackendError(f"the answer is no message: {words}"[:400] if words else "the answer is no message")


def from_server(status: int, answer: bytes) -> BackendError:
    """Return what a local server's error of this status means for the client.

    A status of 500 to 599 makes clients try again, so what would fail again becomes 400. An error within an answer has
    the answer's status, 200: then its own `code` says more.
    """
    error = _error_in(answer)
    if status < 400:
        code = error.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
    message = _message(error) or f"the local server answered {status} and no words"
    if (long := _too_long(error, message)) is not None:
        return BackendError(long, status=400, code="context_length_exceeded")
    if _NO_IMAGES.search(message):
        return BackendError(f"this model takes no images: {message}"[:400], status=400, code="image_not_supported")
    if status >= 500 and _TEMPLATE.search(message):
        return BackendError(f"the model's template refuses this: {message}"[:400], status=400, code="template")
    if status in {400, 413, 422}:
        # Only what clients can read is theirs byte for byte: a page of HTML, or a part of a body, is not.
        own = answer if len(answer) <= _MOST_BYTES and is_object(answer) else b""
        return BackendError(message, status=status, code="invalid_request", body=own)
    if status in {429, 503}:
        return BackendError(message, status=status, code="overloaded")
    if 400 < status < 500:
        # To the client these would speak of its own login, or of its own model's name.
        return BackendError(f"the local server answered {status}: {message}", status=400, code="local_server")
    return BackendError(message, status=502, code="local_server")


def _error_in(answer: bytes) -> dict[str, Any]:
    """Return the error's object in a body, whatever the server wraps it in; empty if there is none."""
    try:
        found = msgspec.json.decode(answer)
    except (ValueError, RecursionError):
        return {"message": answer[:400].decode("utf-8", "replace").strip()}
    inner = found.get("error", found) if isinstance(found, dict) else found
    return inner if isinstance(inner, dict) else {"message": inner}


def _message(error: dict[str, Any]) -> str:
    found = error.get("message") or error.get("detail") or ""
    text = found if isinstance(found, str) else msgspec.json.encode(found).decode()
    return " ".join(text.split())[:400]


def _too_long(error: dict[str, Any], message: str) -> str | None:
    """Return the words for a prompt that does not fit, as the provider says them; None if it is something else."""
    tokens, most = error.get("n_prompt_tokens"), error.get("n_ctx")
    if error.get("type") != "exceed_context_size_error" or not (isinstance(tokens, int) and isinstance(most, int)):
        found = next((match for form in _TOO_LONG if (match := form.search(message))), None)
        if found is None:
            return None
        tokens, most = int(found["tokens"]), int(found["most"])
    return f"prompt is too long: {tokens} tokens > {most} maximum"
