"""Answers that are none, or not whole: they may be asked for again, as often as a task is tried."""

from __future__ import annotations

import gzip
from typing import Any

from tests.support.answers.parts import (
    ATTEMPTS,
    ERROR,
    JSON,
    OPEN,
    PLAIN,
    SSE,
    STOP,
    Case,
    end,
    event,
    message,
    start,
    text,
)


def _failed(name: str, source: str, body: bytes, code: str, requests: int = ATTEMPTS, **more: Any) -> Case:
    given = {"text": "", "stop_reason": "", "tokens": None, "uncertain": requests} | more
    return Case(
        name=name, source=source, body=body, state="failed", code=code, requests=requests, factor="any", **given
    )


BROKEN = [
    Case(
        name="cut in the text",
        source="node-fetch: premature close",
        body=start() + OPEN + text("hello "),
        ending="cut",
        state="failed",
        code="connection",
        text="",
        stop_reason="",
        requests=ATTEMPTS,
        tokens=None,
        factor="any",
        uncertain=ATTEMPTS,
    ),
    _failed(
        "ended in the text", "Switchyard 283: clean end, no end event", start() + OPEN + text("hello "), "connection"
    ),
    _failed(
        "error in the text",
        "envoy ai-gateway 2698, langchain 193",
        start() + OPEN + text("hello ") + ERROR,
        "overloaded_error",
    ),
    _failed("error first", "Helicone 4678: 200, then an error event", ERROR, "overloaded_error"),
    _failed(
        "error without a name",
        "OpenRouter: error in a data line",
        b'data: {"error":{"message":"Provider returned error","type":"api_error"}}\n\n',
        "api_error",
    ),
    _failed(
        "final error in the stream",
        "anthropic-sdk-go 200",
        event("error", error={"type": "invalid_request_error", "message": "no"}),
        "invalid_request",
        1,
    ),
    _failed(
        "error body with 200",
        "OpenRouter, one-api: 200 with an error object",
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        "overloaded_error",
        headers=JSON,
    ),
    _failed("error text with 200", "one-api", b'{"error":"bad"}', "api_error", headers=JSON),
    _failed(
        "half an emoji in an error",
        "hostile",
        event("error", error={"type": "overloaded_error", "message": "\ud83d"}),
        "overloaded_error",
    ),
    _failed(
        "page with 200",
        "captive portals, Cloudflare",
        b"<html><body>Just a moment...</body></html>",
        "api_error",
        headers={"content-type": "text/html"},
    ),
    _failed("no body", "claude-code: empty 200", b"", "api_error", headers=JSON, ending="length"),
    _failed("no events", "openclaw 37571", b": nothing\n\n", "connection"),
    _failed(
        "damaged text event",
        "proxies that cut lines",
        start() + OPEN + text("hello ").replace(b'"}}', b"") + end() + STOP,
        "api_error",
        uncertain=0,
    ),
    _failed("message cut", "node-fetch: premature close", message()[:-30], "api_error", headers=JSON),
    _failed(
        "brotli", "anthropic-sdk-python: br", b"\x0b\x02\x80", "api_error", 1, headers=SSE | {"content-encoding": "br"}
    ),
    _failed(
        "gzip cut", "as gzip", gzip.compress(PLAIN)[:-20], "connection", headers=SSE | {"content-encoding": "gzip"}
    ),
    _failed(
        "gzip of nothing known",
        "hostile",
        b"\x1f\x8b\x08\x00nothing",
        "connection",
        headers=SSE | {"content-encoding": "gzip"},
    ),
]
