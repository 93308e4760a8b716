"""The Admin API's reports as the loopback API gives them, with the refusals of the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from tests.support.messages_api import DEFAULT_ADMIN_KEY, DEFAULT_KEY, MessagesApi, Posting

USAGE = "/v1/organizations/usage_report/messages"
COST = "/v1/organizations/cost_report"
HEADERS = {"x-api-key": DEFAULT_ADMIN_KEY, "anthropic-version": "2023-06-01"}
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
Query = list[tuple[str, str]]
START: Query = [("starting_at", "2026-11-01T00:00:00Z")]


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as running:
        yield running


async def get(api: MessagesApi, path: str, query: Query, headers: dict[str, str] = HEADERS) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(api.url + path, params=query, headers=headers) as answer:
        return answer.status, await answer.json()


async def send(api: MessagesApi, model: str = "claude-haiku-5-5") -> dict[str, Any]:
    body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"x-api-key": DEFAULT_KEY, "anthropic-version": "2023-06-01"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{api.url}/v1/messages", json=body, headers=headers) as answer,
    ):
        assert answer.status == 200
        usage: dict[str, Any] = (await answer.json())["usage"]
        return usage


@pytest.mark.parametrize("path", [USAGE, COST])
@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({}, 401, "x-api-key header is required"),
        ({**HEADERS, "x-api-key": DEFAULT_KEY}, 401, "invalid x-api-key"),
        ({"x-api-key": DEFAULT_ADMIN_KEY}, 400, "anthropic-version: header is required"),
    ],
)
async def test_only_an_admin_key_opens_the_reports(
    api: MessagesApi, path: str, headers: dict[str, str], status: int, words: str
) -> None:
    got, body = await get(api, path, START, headers)
    assert (got, body["error"]["message"]) == (status, words)


async def test_an_admin_key_opens_nothing_else(api: MessagesApi) -> None:
    assert (await get(api, "/v1/models", []))[0] == 401


@pytest.mark.parametrize(
    ("path", "query", "words"),
    [
        (USAGE, [], "starting_at: Field required"),
        (USAGE, [("starting_at", "yesterday")], "starting_at: Input should be a valid datetime"),
        (USAGE, [("starting_at", "2026-11-01")], "starting_at: Input should be a valid datetime"),
        (USAGE, [*START, ("ending_at", "2026-11-01T00:00:00Z")], "ending_at: ending date must be after"),
        (USAGE, [*START, ("bucket_width", "1w")], "bucket_width: Input should be '1d' or '1h' or '1m'"),
        (COST, [*START, ("bucket_width", "1h")], "bucket_width: Input should be '1d'"),
        (USAGE, [*START, ("limit", "32")], "limit: Input should be less than or equal to 31"),
        (USAGE, [*START, ("bucket_width", "1h"), ("limit", "169")], "less than or equal to 168"),
        (COST, [*START, ("limit", "0")], "limit: Input should be greater than or equal to 1"),
        (COST, [*START, ("limit", "many")], "limit: Input should be a valid integer"),
        (USAGE, [*START, ("group_by[]", "colour")], "group_by[].0: Input should be one of"),
        (COST, [*START, ("group_by[]", "model")], "group_by[].0: Input should be one of 'description'"),
        (COST, [*START, ("models[]", "m")], "models[]: Extra inputs are not permitted"),
        (USAGE, [*START, ("service_tiers[]", "gold")], "service_tiers[].0: Input should be one of"),
        (USAGE, [*START, ("page", "2")], "page: Invalid page token"),
        (USAGE, [*START, ("page", "page_MjAyNS0wNS0xNFQwMDowMDowMFo=")], "page: Invalid page token"),
    ],
)
async def test_bad_parameters_are_refused(api: MessagesApi, path: str, query: Query, words: str) -> None:
    api.state.books.post(Posting(at=NOVEMBER, model="claude-haiku-5-5", tokens={"output_tokens": 1}))
    status, body = await get(api, path, query)
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert words in body["error"]["message"]


async def test_other_methods_are_refused(api: MessagesApi) -> None:
    async with aiohttp.ClientSession() as session, session.post(api.url + USAGE, headers=HEADERS) as answer:
        assert (answer.status, answer.headers["allow"]) == (405, "GET")


async def test_what_was_answered_is_in_the_usage_report(api: MessagesApi) -> None:
    sent = [await send(api), await send(api), await send(api, "claude-sonnet-5-5")]
    today = [("starting_at", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))]
    status, body = await get(api, USAGE, [*today, ("group_by[]", "model"), ("group_by[]", "service_tier")])
    assert status == 200
    assert (body["has_more"], body["next_page"], len(body["data"])) == (False, None, 1)
    haiku, sonnet = body["data"][0]["results"]
    assert (haiku["model"], haiku["service_tier"], haiku["workspace_id"]) == ("claude-haiku-5-5", "standard", None)
    assert haiku["output_tokens"] == sent[0]["output_tokens"] + sent[1]["output_tokens"]
    assert haiku["uncached_input_tokens"] == sent[0]["input_tokens"] + sent[1]["input_tokens"]
    assert haiku["cache_creation"] == {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0}
    assert sonnet["model"] == "claude-sonnet-5-5"
    _, whole = await get(api, USAGE, today)
    assert [row["model"] for row in whole["data"][0]["results"]] == [None]
    assert whole["data"][0]["results"][0]["output_tokens"] == sum(usage["output_tokens"] for usage in sent)


async def test_pages_and_buckets(api: MessagesApi) -> None:
    for day in (0, 1, 5):
        api.state.books.post(
            Posting(at=NOVEMBER + day * 86400 + 3600, model="claude-haiku-5-5", tokens={"output_tokens": 10})
        )
    query = [*START, ("ending_at", "2026-11-08T00:00:00Z"), ("limit", "3")]
    seen: list[tuple[str, int]] = []
    page: str | None = None
    for _ in range(3):
        status, body = await get(api, USAGE, [*query, *([("page", page)] if page else [])])
        assert status == 200
        seen += [(b["starting_at"][:10], sum(r["output_tokens"] for r in b["results"])) for b in body["data"]]
        page = body["next_page"]
        assert body["has_more"] is (page is not None)
    assert page is None
    assert seen == [(f"2026-11-0{day}", {1: 10, 2: 10, 6: 10}.get(day, 0)) for day in range(1, 8)]
    _, hours = await get(
        api, USAGE, [("starting_at", "2026-11-01T01:30:00+00:00"), ("bucket_width", "1h"), ("limit", "1")]
    )
    assert hours["data"][0]["starting_at"] == "2026-11-01T01:00:00Z"
    assert hours["data"][0]["results"][0]["output_tokens"] == 10


async def test_costs_are_decimal_strings_of_cents(api: MessagesApi) -> None:
    tokens = {"uncached_input_tokens": 1_000_001, "output_tokens": 3}
    api.state.books.post(Posting(at=NOVEMBER, model="claude-opus-5-5", tokens=tokens, service_tier="batch"))
    api.state.books.post(Posting(at=NOVEMBER, cents="123.45"))
    query = [*START, ("ending_at", "2026-11-02T00:00:00Z")]
    _, body = await get(api, COST, [*query, ("group_by[]", "description")])
    rows = {(row["model"], row["token_type"]): row for row in body["data"][0]["results"]}
    assert rows["claude-opus-5-5", "uncached_input_tokens"]["amount"] == "200.0002"
    assert rows["claude-opus-5-5", "output_tokens"]["amount"] == "0.003"
    assert rows["claude-opus-5-5", "output_tokens"]["description"] == "Claude Opus 5.5 Usage - Output Tokens, Batch"
    assert (rows[None, None]["amount"], rows[None, None]["cost_type"]) == ("123.45", "web_search")
    _, whole = await get(api, COST, query)
    assert [(row["amount"], row["currency"], row["model"]) for row in whole["data"][0]["results"]] == [
        ("323.4532", "USD", None)
    ]


async def test_the_control_endpoints(api: MessagesApi) -> None:
    async with aiohttp.ClientSession(api.url) as session:
        posting = [{"at": NOVEMBER, "model": "m", "cents": "1"}]
        assert (await session.post("/_control/books", json=posting)).status == 200
        assert (await session.post("/_control/books", json=[{"at": "x"}])).status == 400
        assert (await session.put("/_control/admin_keys", json=["sk-ant-admin01-other"])).status == 200
        assert (await get(api, COST, START))[0] == 401
        assert (await session.post("/_control/reset")).status == 200
    _, body = await get(api, COST, START)
    assert all(not bucket["results"] for bucket in body["data"])
