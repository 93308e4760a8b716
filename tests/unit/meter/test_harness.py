"""What a harness's turn may ask for: all that costs by its tokens; and how its most is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from farmhand.core.terms import DEAREST
from farmhand.meter import reserve
from farmhand.meter.errors import ApiError, problem_from_answer
from farmhand.meter.grants import BEARER_BETA, MessageRequest
from farmhand.meter.harness import HarnessPolicy

MODEL = "claude-haiku-5-5"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}


def said(*blocks: Any, **more: Any) -> bytes:
    """A request whose user says these blocks."""
    content = [*blocks] or "hi"
    return json.dumps(
        {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": content}], **more}
    ).encode()


def read(body: bytes, **opened: Any) -> MessageRequest:
    return HarnessPolicy(**opened).read(body, model=MODEL, max_tokens=1000)


@pytest.mark.parametrize(
    "more",
    [
        {"speed": "standard"},
        {"speed": None},
        {"service_tier": "auto"},
        {"service_tier": "standard_only"},
        {"inference_geo": "global"},
        {"mcp_servers": []},
        {"container": None},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015"}, {"type": "clear_tool_uses_20250919"}]}},
        {"safeguards": {"a": 1}},
        {"tools": [{"type": "custom", "name": "a"}, {"name": "b", "defer_loading": True}]},
        {"thinking": {"type": "adaptive", "display": "x"}},
    ],
)
def test_what_costs_by_its_tokens_passes_as_it_is(more: dict[str, Any]) -> None:
    policy, body = HarnessPolicy(), said(**more)
    assert policy.read(body, model=MODEL, max_tokens=1000).body is body
    assert policy.unknown == []


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"speed": "fast"}, "speed"),
        ({"speed": {"of": "tomorrow"}}, "speed"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"mcp_servers": [{"type": "url", "url": "https://x.test"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"thread": {"type": "continue"}}, "thread"),
        ({"compaction": {"instructions": "x"}}, "compaction"),
        ({"fallbacks": [{"model": "y"}]}, "fallbacks"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management.edits[0]"),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015"}, {}]}}, "context_management.edits[1]"),
        ({"tools": [{"name": "a"}, {"type": "web_search_20250305", "name": "w"}]}, "tools[1]"),
    ],
)
def test_what_costs_beside_them_is_refused_by_its_place(more: dict[str, Any], path: str) -> None:
    with pytest.raises(ApiError) as refusal:
        read(said(**more))
    assert refusal.value.status == 400
    assert refusal.value.message.startswith(f"{path} asks for ")


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
        {"type": "document", "source": {"type": "file", "file_id": "f"}},
        {"type": "container_upload", "file_id": "f"},
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]},
        {"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": {"type": "file"}}]}},
    ],
)  # fmt: skip
def test_what_the_provider_would_fetch_is_the_operators_choice(block: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="would fetch"):
        read(said(block))
    # What it brings is not in the request: only the API can count it.
    assert read(said(block), fetch=True).tokens is None


def test_hosted_tools_are_the_operators_choice() -> None:
    body = said(tools=[{"type": "web_search_20250305", "name": "w"}])
    assert read(body, hosted_tools=True).body is body


def test_the_most_is_a_token_for_each_byte_and_an_images_own() -> None:
    assert read(body := said()).tokens == len(body)
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG * 100}}
    assert 0 < (read(said(image)).tokens or 0) < len(said(image)) - 9000 + 6000
    assert read(said(PDF)).tokens is None
    assert read(said({"type": "of_tomorrow"})).tokens is None
    assert read(said(PDF), counted=1000).tokens == 1050
    limits = ({"max_tokens": 7}, 7), ({"thinking": {"type": "enabled", "budget_tokens": 90}}, 90)
    for more, most in limits:
        assert read(said(**more)).max_tokens == most


def test_the_reservation_covers_the_dearest_that_can_come() -> None:
    table = price_table()
    body = said(system=[{"type": "text", "text": "x" * 5000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}])
    request = read(body)
    most = reserve.cost(request, lambda usage: table.cost(MODEL, usage, DEAREST))
    assert request.written == "1h"
    tokens = len(body)
    worst = Usage(output_tokens=9, cache_creation_input_tokens=tokens, cache_creation_1h_input_tokens=tokens)
    cost = table.cost(MODEL, worst, DEAREST)
    assert most is not None
    assert cost is not None
    assert most > cost


def test_what_nobody_knows_is_noted_in_our_own_letters() -> None:
    policy = HarnessPolicy()
    names = {f"new{number}": number for number in range(40)}
    policy.read(said({"type": "of_tomorrow"}, **names, **{"a\nb\u20ac": 1}), model=MODEL, max_tokens=1000)
    assert len(policy.unknown) == 20
    assert all(name.isascii() and name.isprintable() for name in policy.unknown)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", said(model="other"), said(max_tokens=-1), said(max_tokens="9"), said(tools="x"), b"[" * 2000],
)  # fmt: skip
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as refusal:
        read(body)
    assert refusal.value.status == 400


def test_every_header_of_the_provider_passes_and_no_credential() -> None:
    given = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": f"a-2026-01-01, {BEARER_BETA},b-2027-01-01",
        "anthropic-of-tomorrow": "1",
        "user-agent": "claude-cli/2.1.332",
        "authorization": "Bearer fhg-test",
        "x-api-key": "fhg-test",
        "cookie": "a=b",
        "x-farmhand-work-class": "agent",
        "anthropic-bad": "a\nb",
    }
    assert HarnessPolicy().forwarded(given) == {
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "a-2026-01-01,b-2027-01-01",
        "anthropic-of-tomorrow": "1",
        "user-agent": "claude-cli/2.1.332",
    }


def test_a_refusal_is_kept_as_it_came_but_for_keys() -> None:
    raw = b'{"type": "error",\n "error": {"type": "invalid_request_error", "message": "x"}}'
    for status in (400, 413, 422):
        assert problem_from_answer(status, raw).body == raw
    for status in (401, 403, 404, 429, 500):
        assert problem_from_answer(status, raw).body == b""
    quoted = raw.replace(b'"x"', b'"sk-ant-test-0123456789abcdef0123"')
    assert problem_from_answer(400, quoted).body == raw.replace(b'"x"', '"sk-ant-\u2026[redacted]"'.encode())
