"""Errors: their bodies in each dialect, and what local servers say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from farmhand.gateway.dialects import errors


def said(error: Any) -> bytes:
    return msgspec.json.encode({"error": error})


LONG = "prompt is too long: 15024 tokens > 4096 maximum"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, said({"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 15024, "n_ctx": 4096})),
        (
            400,
            said(
                {
                    "message": "This model's maximum context length is 4096 tokens. However, you requested 15124 "
                    "tokens (15024 in the messages, 100 in the completion). Please reduce the length."
                }
            ),
        ),
        (
            400,
            said("This model's maximum context length is 4096 tokens. However, your request has 15024 input tokens."),
        ),
        (400, said({"message": "The decoder prompt (length 15024) is longer than the maximum model length of 4096."})),
        (
            400,
            b'{"message":"The input (15024 tokens) is longer than the model\'s context length (4096 tokens)."}',
        ),
        (
            500,
            said(
                "Trying to keep the first 15024 tokens when context the overflows. However, the model is loaded with "
                "context length of only 4096 tokens, which is not enough."
            ),
        ),
    ],
)
def test_a_prompt_that_does_not_fit_is_said_in_the_words_that_clients_look_for(status: int, body: bytes) -> None:
    error = errors.from_server(status, body)
    assert (str(error), error.status, error.code, error.body) == (LONG, 400, "context_length_exceeded", b"")


@pytest.mark.parametrize(
    ("status", "body", "becomes"),
    [
        (500, said({"message": "image input is not supported - hint: you may need to provide the mmproj"}), 400),
        (500, said({"message": "Model does not support images. Please use a model that does"}), 400),
        (500, said({"message": "Jinja Exception: System message must be at the beginning."}), 400),
        (500, said({"message": "Failed to parse tool call arguments as JSON"}), 400),
        (500, said({"message": "out of memory"}), 502),
        (200, said({"message": "out of memory"}), 502),
        (200, said({"message": "slow down", "code": 429}), 429),
        (200, said({"message": "slow down", "code": "429"}), 502),
        (503, said({"message": "Loading model"}), 503),
        (429, said("slow down"), 429),
        (401, said({"message": "Invalid API Key"}), 400),
        (404, said({"message": "model 'x' not found"}), 400),
        (400, said({"message": "tools is no list"}), 400),
        (422, b'{"detail":[{"loc":["body"],"msg":"field required"}]}', 422),
        (400, said("x" * 70_000), 400),
        (400, b"<html>Bad Request</html>", 400),
        (500, b"<html>Bad Gateway</html>", 502),
        (502, b"", 502),
    ],
)
def test_what_would_fail_again_is_no_500(status: int, body: bytes, becomes: int) -> None:
    error = errors.from_server(status, body)
    assert error.status == becomes
    assert str(error)
    assert "\n" not in str(error)
    # A client cannot read a page of HTML, nor a part of a body.
    whole = body.startswith(b"{") and len(body) < 65_536
    assert error.body == (body if status in {400, 422} and whole else b"")


def test_bodies_by_dialect() -> None:
    assert msgspec.json.decode(errors.body("messages", 402, "x", "farmhand_deferred")) == {
        "type": "error",
        "error": {"type": "billing_error", "message": "x"},
    }
    assert msgspec.json.decode(errors.body("messages", 502, "x"))["error"]["type"] == "api_error"
    for dialect in ("chat", "responses"):
        assert msgspec.json.decode(errors.body(dialect, 400, "x", "farmhand_deferred")) == {
            "error": {"message": "x", "type": "invalid_request_error", "param": None, "code": "farmhand_deferred"}
        }
        assert msgspec.json.decode(errors.body(dialect, 502, "x"))["error"]["type"] == "server_error"
