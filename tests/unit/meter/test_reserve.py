"""What is reserved is never less than what the API counts: the loopback one, with the dearest tokenizer possible."""

from __future__ import annotations

import base64
import dataclasses
import json
import struct
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from farmhand.core.terms import DEAREST
from farmhand.meter import policy, reserve
from farmhand.meter.grants import MessageRequest
from tests.support.messages_api import catalog
from tests.support.messages_api.usage import PromptCache
from tests.support.messages_api.validate import Request, check

MODEL = "claude-haiku-5-5"
PRICE = partial(price_table().cost, MODEL, terms=DEAREST)
#: A token for each byte: no tokenizer makes more.
WORST = dataclasses.replace(catalog.MODELS[MODEL], token_bytes=1.0)
HEADERS = {"anthropic-version": "2023-06-01", "anthropic-beta": "context-management-2025-06-27"}


def body(content: Any = "hello", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": content}], **more}


def read(document: dict[str, Any] | bytes) -> MessageRequest:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return policy.read(data, model=MODEL, max_tokens=128_000)


def reserved(document: dict[str, Any] | bytes, counted: int | None = None) -> int:
    cost = reserve.cost(read(document), PRICE, counted)
    assert cost is not None
    return cost


def billed(sent: bytes) -> int:
    """What the API would take for the request with the longest answer, and with tokens as dear as they get."""
    request = check(json.loads(sent), HEADERS)
    counts = PromptCache().count(Request(WORST, request.body, request.thinking, request.tools), "k")
    usage = Usage(
        input_tokens=counts["input_tokens"],
        cache_creation_input_tokens=counts["cache_creation_input_tokens"],
        cache_creation_1h_input_tokens=counts["cache_creation"]["ephemeral_1h_input_tokens"],
        output_tokens=request.body["max_tokens"],
    )
    cost = PRICE(usage)
    assert cost is not None
    return cost


def picture(width: int, height: int) -> dict[str, Any]:
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0)
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(data).decode()},
    }


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300).filter(str.strip)
MARKER = st.sampled_from(
    [{}, {"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral", "ttl": "1h"}}]
)
BLOCK = st.builds(lambda text, marker: {"type": "text", "text": text, **marker}, TEXT, MARKER) | st.builds(
    picture, st.integers(1, 8000), st.integers(1, 8000)
)


@given(
    st.lists(BLOCK, min_size=1, max_size=4),
    TEXT,
    st.lists(
        st.builds(lambda text: {"name": "look", "description": text, "input_schema": {"type": "object"}}, TEXT),
        max_size=1,
    ),
    st.integers(1, 128_000),
    st.booleans(),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_reservation_covers_what_the_api_counts(
    content: list[dict[str, Any]], system: str, tools: list[dict[str, Any]], max_tokens: int, ascii_only: bool
) -> None:
    document = body([*content, {"type": "text", "text": "end"}], system=system, tools=tools, max_tokens=max_tokens)
    text = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert reserved(text) >= billed(read(text).body)


@pytest.mark.parametrize("text", ["မြန်မာ" * 3000, "\x01\x02" * 9000, "ᠮᠣᠩᠭᠣᠯ" * 2000, "qj" * 9000, "𒀀" * 3000])
def test_rare_scripts_cost_a_token_a_byte(text: str) -> None:
    tokens = read(body(text)).tokens
    assert tokens is not None
    assert tokens >= len(text.encode())


HIDDEN = [
    b'"cache_control"',
    b'"cache\\u005fcontrol"',
    b'"\\u0063ache_control"',
    b'"ca\\u0063he_contro\\u006c"',
]


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize(("ttl", "kept"), [(b"", "5m"), (b', "ttl": "1h"', "1h"), (b', "ttl": "\\u0031\\u0068"', "1h")])
def test_escapes_hide_no_cache(name: bytes, ttl: bytes, kept: str) -> None:
    marked = b'[{"type":"text","text":"%s",%s:{"type":"ephemeral"%s}}]' % (b"word " * 5000, name, ttl)
    text = json.dumps(body()).encode().replace(b'"hello"', marked)
    assert read(text).written == kept
    assert reserved(text) >= billed(read(text).body) > reserved(body()) * 5


def test_words_about_the_cache_in_a_text_are_no_cache() -> None:
    assert read(body('{"cache_control":{"ttl":"1h"}}')).written == ""


def test_a_prompt_that_may_be_a_long_one_has_the_prices_of_one() -> None:
    # 100,000 tokens and more: five times the price for all of them. The model's prices: docs/cost.md.
    assert reserved(body("x" * 101_000)) > reserved(body("x" * 98_000)) * 4
    assert reserved(body("x" * 101_000), 25_000) < reserved(body("x" * 98_000))


def test_a_small_picture_file_costs_what_its_pixels_cost() -> None:
    small, large = read(body([picture(10, 10)])).tokens, read(body([picture(8000, 8000)])).tokens
    assert small is not None
    assert large is not None
    assert large - small == 4784 - 1


def test_the_bytes_of_a_picture_are_no_text() -> None:
    bare, padded = picture(100, 100), picture(100, 100)
    padded["source"]["data"] = base64.b64encode(base64.b64decode(bare["source"]["data"]) + bytes(300_000)).decode()
    assert read(body([bare])).tokens == read(body([padded])).tokens


@pytest.mark.parametrize("where", ["message", "tool result"])
def test_a_pdf_cannot_be_sized_here(where: str) -> None:
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [pdf]}
    request = read(body([pdf if where == "message" else result]))
    assert request.tokens is None
    assert reserve.cost(request, PRICE) is None
    counted = reserve.cost(request, PRICE, 3000)
    assert counted is not None
    assert counted > reserve.cost(request, PRICE, 0)  # type: ignore[operator]  # the price is known


def test_what_is_counted_has_all_that_becomes_tokens() -> None:
    more = {"system": "s", "tools": [{"name": "t", "input_schema": {}}], "thinking": {"type": "disabled"}}
    edits = {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}
    document = body(**more, **edits, stream=True, metadata={"user_id": "u"})
    assert json.loads(policy.to_count(read(document))) == {"model": MODEL, "messages": document["messages"], **more}


def test_what_may_be_thought_is_reserved_where_it_is_more_than_the_answer() -> None:
    thinking = {"type": "enabled", "budget_tokens": 5000}
    assert read(body(thinking=thinking)).max_tokens == 5000
    assert read(body(thinking=thinking, max_tokens=6000)).max_tokens == 6000
    assert reserved(body(thinking=thinking)) >= reserved(body(max_tokens=5000))


def test_without_a_price_nothing_is_known() -> None:
    assert reserve.cost(read(body()), lambda _usage: None) is None
    # One of the kinds of tokens has none.
    assert reserve.cost(
        read(body([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}])),
        lambda usage: None if usage.cache_creation_input_tokens else 1,
    ) is None  # fmt: skip


def test_the_longest_answer_with_room_is_exact() -> None:
    request = read(body(max_tokens=4096))
    room = (reserve.cost(request, PRICE) or 0) // 3
    most = reserve.longest(request, PRICE, room)
    fitting = [reserve.cost(read(body(max_tokens=tokens)), PRICE) for tokens in (most, most + 1)]
    assert fitting[0] is not None
    assert fitting[1] is not None
    assert fitting[0] <= room < fitting[1]
    assert reserve.longest(request, PRICE, 0) == 0
    assert reserve.longest(request, PRICE, 10**15) == 4096
