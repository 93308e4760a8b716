"""Enforced limits of the loopback Messages API: token buckets, concurrency, and headers that are true to them."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import aiohttp
import anthropic
import pytest

from tests.support.messages_api import DEFAULT_KEY, Fault, Limits, MessagesApi, Plan
from tests.support.messages_api.limits import Bucket, Limited, RateLimits

HEADERS = {"x-api-key": DEFAULT_KEY, "anthropic-version": "2023-06-01"}
OLD, NEW = "claude-haiku-4-5", "claude-haiku-5-5"
DIMENSIONS = ("requests", "tokens", "input-tokens", "output-tokens")


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def ask(text: str = "hello", **changes: Any) -> Any:
    return {"model": OLD, "max_tokens": 100, "messages": [{"role": "user", "content": text}]} | changes


async def refused(client: anthropic.AsyncAnthropic, **changes: Any) -> anthropic.RateLimitError:
    with pytest.raises(anthropic.RateLimitError) as caught:
        await client.messages.create(**ask(**changes))
    return caught.value


def test_bucket() -> None:
    clock = Clock()
    bucket = Bucket(60, 60.0, clock)
    bucket.take(60)
    assert (bucket.left(), bucket.wait_s(10), bucket.retry_after(10)) == (0, 10, "10")
    clock.now += 9.5
    assert (bucket.left(), bucket.retry_after(10)) == (9.5, "1")
    bucket.take(30)
    assert (bucket.left(), bucket.wait_s(60)) == (-20.5, 80.5)
    clock.now += 1000
    assert (bucket.left(), bucket.wait_s(60)) == (60, 0)
    assert bucket.retry_after(61) == "60"


@pytest.mark.parametrize(
    ("limits", "name", "retry_after"),
    [
        (Limits(requests=2), "requests", 30),  # one each 30 s
        (Limits(input_tokens=250), "input-tokens", 12),  # 50 are there, 100 asked for, 250 in 60 s
        (Limits(output_tokens=60), "output-tokens", 141),  # 140 below zero, one a second
    ],
)
def test_waiting_as_long_as_told_is_enough_and_less_is_not(limits: Limits, name: str, retry_after: int) -> None:
    clock = Clock()
    state = RateLimits(limits, clock=clock)
    for _ in range(2):
        state.admit(OLD, 100)
        if name != "output-tokens" or _ == 1:
            state.produced(OLD, 200)
    for wait in (0, retry_after - 1.01):
        clock.now += wait
        with pytest.raises(Limited) as caught:
            state.admit(OLD, 100)
        assert (caught.value.status, caught.value.name) == (429, name)
        if not wait:
            assert caught.value.headers["retry-after"] == str(retry_after)
            assert caught.value.headers[f"anthropic-ratelimit-{name}-remaining"] == ("50" if "input" in name else "0")
    clock.now += 1.01
    state.admit(OLD, 100)


def test_each_model_has_its_own_buckets() -> None:
    state = RateLimits(Limits(requests=1), clock=Clock())
    state.admit(OLD, 10)
    state.admit(NEW, 10)
    with pytest.raises(Limited):
        state.admit(NEW, 10)


def test_rounded_counts() -> None:
    state = RateLimits(Limits(input_tokens=10_000, rounded=True), clock=Clock())
    state.admit(OLD, 2_400)
    headers = state.headers(OLD)
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "8000"
    assert headers["anthropic-ratelimit-requests-remaining"] == "3999999"


async def test_off_by_default(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    raw = await client.messages.with_raw_response.create(**ask())
    assert raw.headers["anthropic-ratelimit-requests-limit"] == "4000000"
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "3999999"
    assert api.state.limits.limits is None
    raw = await client.messages.with_raw_response.create(**ask(model=NEW))
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "3999998"


async def test_requests_a_minute(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.limit(Limits(requests=3, minute_s=6))
    for left in (2, 1, 0):
        raw = await client.messages.with_raw_response.create(**ask())
        assert raw.headers["anthropic-ratelimit-requests-limit"] == "3"
        assert raw.headers["anthropic-ratelimit-requests-remaining"] == str(left)
    error = await refused(client)
    body: Any = error.body
    assert body["error"]["type"] == "rate_limit_error"
    assert body["error"]["message"].endswith("rate limit of 3 requests per minute.")
    wait = int(error.response.headers["retry-after"])
    assert wait in (1, 2)  # one each 2 s, and some of that has passed
    assert error.response.headers["anthropic-ratelimit-requests-remaining"] == "0"
    full = datetime.fromisoformat(error.response.headers["anthropic-ratelimit-requests-reset"])
    assert 4 < (full - datetime.now(UTC)).total_seconds() <= 7
    assert [entry.limited for entry in api.log] == ["", "", "", "requests"]
    await client.messages.count_tokens(model=OLD, messages=ask()["messages"])  # not a message
    await client.messages.create(**ask(model=NEW))
    await asyncio.sleep(wait)
    await client.messages.create(**ask())


async def test_the_sdk_waits_as_long_as_it_is_told(api: MessagesApi) -> None:
    api.limit(Limits(requests=2, minute_s=2))
    async with anthropic.AsyncAnthropic(api_key=DEFAULT_KEY, base_url=api.url, max_retries=3) as client:
        started = time.monotonic()
        for _ in range(3):
            await client.messages.create(**ask())
    assert time.monotonic() - started >= 1
    assert [entry.status for entry in api.posts] == [200, 200, 429, 200]


async def test_input_tokens(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.limit(Limits(input_tokens=500, minute_s=600))
    raw = await client.messages.with_raw_response.create(**ask("x" * 1200))  # 308 tokens
    assert raw.headers["anthropic-ratelimit-input-tokens-limit"] == "500"
    assert 192 <= int(raw.headers["anthropic-ratelimit-input-tokens-remaining"]) < 200
    total = int(raw.headers["anthropic-ratelimit-tokens-remaining"])
    parts = [int(raw.headers[f"anthropic-ratelimit-{n}-tokens-remaining"]) for n in ("input", "output")]
    assert total == sum(parts)
    error = await refused(client, text="x" * 1200)
    assert 130 <= int(error.response.headers["retry-after"]) <= 140  # 116 tokens at 500 in 600 s
    await client.messages.create(**ask("x" * 400))
    assert await refused(client, text="x" * 4000)  # more than the bucket ever holds


async def test_cached_input_does_not_count(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.limit(Limits(input_tokens=12_000, minute_s=6000))
    block = [{"type": "text", "text": "x" * 40_000, "cache_control": {"type": "ephemeral"}}]
    for _ in range(4):
        answer = await client.messages.create(**ask(system=block))
    assert answer.usage.cache_read_input_tokens == 10_000


async def test_a_refused_prompt_is_not_cached(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.limit(Limits(requests=1, minute_s=6000))
    await client.messages.create(**ask())
    block = [{"type": "text", "text": "x" * 40_000, "cache_control": {"type": "ephemeral"}}]
    await refused(client, system=block)
    api.limit(None)
    assert (await client.messages.create(**ask(system=block))).usage.cache_read_input_tokens == 0


async def test_output_tokens(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.limit(Limits(output_tokens=10, minute_s=600))
    raw = await client.messages.with_raw_response.create(**ask(max_tokens=4000))  # what is asked for does not count
    assert raw.headers["anthropic-ratelimit-output-tokens-remaining"] == "0"
    error = await refused(client)
    assert "output tokens per minute" in str(error)
    used = (await raw.parse()).usage.output_tokens
    assert abs(int(error.response.headers["retry-after"]) - (used - 10 + 1) * 60) <= 1


@pytest.mark.parametrize(("status", "type_"), [(429, "rate_limit_error"), (529, "overloaded_error")])
async def test_concurrency(api: MessagesApi, client: anthropic.AsyncAnthropic, status: Any, type_: str) -> None:
    api.limit(Limits(concurrent=3, concurrent_status=status))
    api.state.latency_s = 0.6

    async def one() -> int:
        try:
            await client.messages.create(**ask())
        except anthropic.APIStatusError as error:
            body: Any = error.body
            assert body["error"]["type"] == type_
            return error.status_code
        return 200

    found = await asyncio.gather(*(one() for _ in range(8)))
    assert sorted(found) == sorted([200] * 3 + [status] * 5)
    assert (api.state.limits.peak, api.state.limits.running) == (3, 0)
    assert [entry.limited for entry in api.posts].count("concurrent") == 5
    assert await one() == 200


async def test_a_client_that_leaves_gives_its_place_back(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.limit(Limits(concurrent=1))
    api.fault(Fault(kind="stalled"))
    with pytest.raises(anthropic.APITimeoutError):
        await client.messages.create(**ask(), timeout=0.3)
    async with asyncio.timeout(120):
        while api.state.limits.running:  # noqa: ASYNC110  # the server notices in its own time
            await asyncio.sleep(0.01)
    await client.messages.create(**ask())


async def test_batches_have_limits_of_their_own(client: anthropic.AsyncAnthropic, api: MessagesApi) -> None:
    api.batches.plan = Plan(after_ms=None)
    api.limit(Limits(requests=1, batch_requests=3, batch_queue=5, minute_s=600))
    requests: Any = [{"custom_id": f"ask-{i}", "params": ask()} for i in range(4)]
    batch = await client.messages.batches.create(requests=requests)
    with pytest.raises(anthropic.RateLimitError):
        await client.messages.batches.create(requests=requests)  # 8 would wait
    await client.messages.batches.retrieve(batch.id)
    with pytest.raises(anthropic.RateLimitError) as caught:
        await client.messages.batches.retrieve(batch.id)
    assert 190 <= int(caught.value.response.headers["retry-after"]) <= 200
    assert [entry.limited for entry in api.log] == ["", "batch-queue", "", "batch-requests"]
    await api.advance(action="finish")
    assert api.batches.get(batch.id).counts()["succeeded"] == 4  # the limits of /v1/messages are not theirs
    assert api.state.limits.headers(OLD)["anthropic-ratelimit-requests-remaining"] == "1"


async def test_control(api: MessagesApi) -> None:
    async with aiohttp.ClientSession(api.url, headers=HEADERS) as session:

        async def call(method: str, value: Any = ...) -> tuple[int, str]:
            data = None if value is ... else json.dumps(value).encode()
            async with session.request(method, "/_control/limits", data=data) as response:
                return response.status, await response.text()

        assert json.loads((await call("GET"))[1]) == {"limits": None, "running": 0, "peak": 0}
        set_ = json.loads((await call("PUT", {"requests": 1, "concurrent": 4}))[1])["limits"]
        assert (set_["requests"], set_["concurrent"], set_["minute_s"]) == (1, 4, 60.0)
        statuses = []
        for _ in range(2):
            async with session.post("/v1/messages", json=ask()) as response:
                statuses.append(response.status)
                for name in DIMENSIONS:
                    assert f"anthropic-ratelimit-{name}-reset" in response.headers
        assert statuses == [200, 429]
        assert json.loads((await call("GET"))[1])["peak"] == 1
        assert (await call("PUT", None))[0] == 200
        async with session.post("/v1/messages", json=ask()) as response:
            assert response.status == 200
        for wrong in ({"requests": 0}, {"speed": 1}, {"concurrent": 1, "concurrent_status": 500}):
            status, text = await call("PUT", wrong)
            assert (status, text.split(":")[0]) == (400, "/_control/limits")
