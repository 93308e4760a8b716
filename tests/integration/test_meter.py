"""The meter on its own: what it lets pass, what it refuses, what it counts. The official SDK is one of its clients."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from farmhand.meter import http_server, policy
from farmhand.meter.upstream import Upstream
from tests.support.answers import Case
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi
from tests.support.messages_api.verbatim import Ending
from tests.support.meter import BODY, HEADERS, MODEL, Served


async def test_the_sdk_gets_its_answer_and_the_api_gets_the_key(served: Served, api: MessagesApi) -> None:
    message = await served.sdk().messages.create(
        model=MODEL, max_tokens=64, messages=[{"role": "user", "content": "hello"}]
    )
    assert "hello" in "".join(block.text for block in message.content if block.type == "text")
    [post] = api.posts
    assert post.headers["x-api-key"] == DEFAULT_KEY
    assert served.token not in str(post.headers)
    assert served.usage.input_tokens == message.usage.input_tokens
    assert served.usage.output_tokens == message.usage.output_tokens


async def test_the_sdk_streams_through_unbuffered(served: Served, api: MessagesApi) -> None:
    api.state.event_s = 0.05
    loop = asyncio.get_running_loop()
    arrivals = []
    async with served.sdk().messages.stream(
        model=MODEL, max_tokens=256, messages=[{"role": "user", "content": "tell me a longer story"}]
    ) as stream:
        async for _text in stream.text_stream:
            arrivals.append(loop.time())
        message = await stream.get_final_message()
    assert len(arrivals) > 2
    assert arrivals[-1] - arrivals[0] > 0.05
    assert served.usage.output_tokens == message.usage.output_tokens
    assert served.usage.requests == 1


async def test_what_the_answer_tells_of_the_account_stays_here(served: Served, api: MessagesApi) -> None:
    body = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
    for stream in (False, True):
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{served.url}/v1/messages",
                json=body | {"stream": stream},
                headers={"x-api-key": served.token, "anthropic-version": "2023-06-01"},
            ) as answer,
        ):
            assert answer.status == 200
            told = {name.lower() for name in answer.headers}
            assert "request-id" in told
            assert not {name for name in told if name.startswith("anthropic")}, told


@pytest.mark.parametrize("token", ["", "jt-unknown", DEFAULT_KEY, "\udcff"])
async def test_another_token_is_refused(served: Served, api: MessagesApi, token: str) -> None:
    if token == "\udcff":
        reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rsplit(":", 1)[1]))
        writer.write(
            b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nx-api-key: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}"
        )
        status = int((await reader.readline()).split()[1])
        writer.close()
        assert status in {400, 401}
    else:
        status, text = await served.post(token=token)
        assert status == 401
        assert "authentication_error" in text
    assert not api.posts


async def test_a_used_token_is_refused(served: Served, api: MessagesApi) -> None:
    await served.meter.grants.revoke(served.token)
    assert (await served.post())[0] == 401
    assert not api.posts


async def test_the_key_itself_opens_nothing_and_never_comes_back(served: Served, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=401, message=f"key {DEFAULT_KEY} is not valid"))
    status, text = await served.post()
    assert status == 401
    assert DEFAULT_KEY not in text


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/v1/messages/batches", "/v1/organizations/api_keys", "/v1/messages/../models", "/", "/v1/complete"],
)
async def test_every_other_path_is_refused(served: Served, api: MessagesApi, path: str) -> None:
    status, text = await served.post(path)
    assert status in {404, 405}
    assert '"error"' in text
    assert not api.log


@pytest.mark.parametrize("host", ["api.anthropic.com", "evil.example:80", "169.254.169.254", "localhost.evil"])
async def test_every_other_host_is_refused(served: Served, api: MessagesApi, host: str) -> None:
    assert (await served.post(host=host))[0] == 421
    assert not api.log


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET http://evil.example/ HTTP/1.1",
        b"POST http://evil.example/v1/messages HTTP/1.1",
        b"CONNECT evil.example:443 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
    ],
)
async def test_it_is_no_proxy(served: Served, api: MessagesApi, request_line: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rsplit(":", 1)[1]))
    token = served.token.encode()
    writer.write(request_line + b"\r\nHost: localhost\r\nx-api-key: " + token + b"\r\nContent-Length: 0\r\n\r\n")
    status = int((await reader.readline()).split()[1])
    writer.close()
    assert status in {400, 404, 405, 421}
    assert not api.log


async def test_a_token_is_good_for_its_task_s_model_only(served: Served, api: MessagesApi) -> None:
    status, text = await served.post(body=BODY | {"model": "claude-opus-5-5"})
    assert status == 403
    assert "claude-opus-5-5" in text
    assert not api.posts


@pytest.mark.parametrize("body", [None, [], "x", {"model": 3}, {}])
async def test_a_body_that_is_no_request_is_refused(served: Served, api: MessagesApi, body: object) -> None:
    assert (await served.post(body=body))[0] == 400
    assert not api.posts


async def test_retries_are_the_meter_s_and_wait_as_told(served: Served, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=429, retry_after=7), Fault(kind="status", status=529))
    assert (await served.post())[0] == 200
    assert served.grant.retries == 2
    assert served.waits[0] >= 7
    assert served.waits[1] <= 1
    assert served.grant.problem is None


async def test_the_last_error_is_passed_on(served: Served, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=529, count=-1))
    status, text = await served.post()
    assert status == 529
    assert "overloaded_error" in text
    assert len(api.posts) == 4


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_closes_its_upstream_call(served: Served, api: MessagesApi, streamed: bool) -> None:
    api.fault(Fault(kind="slow", delay_s=60))
    call = asyncio.create_task(served.post(body=BODY | {"stream": streamed}))
    for _ in range(12000):
        if api.posts:
            break
        await asyncio.sleep(0.01)
    call.cancel()
    for _ in range(2400):
        if api.posts[0].aborted:
            break
        await asyncio.sleep(0.05)
    assert api.posts[0].aborted


async def test_a_cut_answer_is_shown_as_cut_and_takes_no_more(served: Served, api: MessagesApi) -> None:
    api.fault(Fault(kind="cut", after_events=4))
    with pytest.raises(aiohttp.ClientError):
        await served.post(body=BODY | {"stream": True})
    assert served.grant.problem is not None
    assert served.usage.input_tokens > 0
    status, text = await served.post()
    assert status == 403
    assert "cut short" in text
    assert len(api.posts) == 1


async def test_counting_tokens_is_passed_and_costs_nothing(served: Served) -> None:
    body = {name: value for name, value in BODY.items() if name != "max_tokens"}
    status, text = await served.post("/v1/messages/count_tokens?beta=true", body=body)
    assert status == 200, text
    assert served.usage.requests == 0


async def test_the_first_question_of_the_cli_is_answered(served: Served) -> None:
    async with aiohttp.ClientSession() as session, session.head(served.url + "/") as answer:
        assert answer.status == 200


async def test_an_oversized_request_is_refused(served: Served, api: MessagesApi) -> None:
    assert (await served.post(body=BODY | {"system": "x" * http_server.MAX_BODY}))[0] == 413
    assert not api.posts


@pytest.mark.parametrize("count", [1, 4])
async def test_some_megabytes_pass_and_are_not_kept(served: Served, api: MessagesApi, count: int) -> None:
    api.fault(Fault(kind="slow", delay_s=0.3, count=count))
    body = BODY | {"system": "é" * 1_300_000}
    calls = [asyncio.create_task(served.post(body=body)) for _ in range(count)]
    assert [status for status, _ in await asyncio.gather(*calls)] == [200] * count
    assert [json.loads(post.body) for post in api.posts] == [body] * count


async def raw(served: Served, body: bytes, headers: bytes = b"") -> int:
    """The status of the answer to a POST with these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rsplit(":", 1)[1]))
    head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nanthropic-version: 2023-06-01\r\nx-api-key: %b\r\n"
    writer.write(head % served.token.encode() + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    async with asyncio.timeout(120):
        status = int((await reader.readline()).split()[1])
    writer.close()
    return status


SMUGGLED = b'{"mod\\u0065l": "claude-opus-5-5", "model": "%b", "max_tokens": 999, "max_tokens": 64, "messages": %b}'


async def test_of_doubled_keys_the_api_gets_the_one_that_was_checked(served: Served, api: MessagesApi) -> None:
    messages = b'[{"role": "user", "content": "other", "c\\u006fntent": "hello"}]'
    assert await raw(served, SMUGGLED % (MODEL.encode(), messages)) == 200
    [post] = api.posts
    assert post.body == json.dumps(BODY, separators=(",", ":"))


async def test_a_charset_of_the_client_s_is_not_the_api_s(served: Served, api: MessagesApi) -> None:
    odd = b"Content-Type: application/json; charset=utf-16\r\nContent-Encoding: gzip\r\n"
    assert await raw(served, json.dumps(BODY).encode(), odd) == 200
    [post] = api.posts
    headers = {name.lower(): value for name, value in post.headers.items()}
    assert headers["content-type"] == "application/json"
    assert "content-encoding" not in headers


async def test_betas_pass_by_name(served: Served, api: MessagesApi) -> None:
    asked = "context-management-2025-06-27,compact-2026-01-12,fast-mode-2026-02-01,effort-2025-11-24"
    assert await raw(served, json.dumps(BODY).encode(), f"anthropic-beta: {asked}\r\n".encode()) == 200
    [post] = api.posts
    headers = {name.lower(): value for name, value in post.headers.items()}
    assert headers["anthropic-beta"] == "context-management-2025-06-27,effort-2025-11-24"


async def test_what_is_refused_counts_among_the_requests_of_a_task(served: Served, api: MessagesApi) -> None:
    served.grant.started = policy.MAX_REQUESTS - 1
    assert (await served.post(body=BODY | {"speed": "fast"}))[0] == 400
    assert (await served.post())[0] == 403
    assert not api.posts


IMAGE = {"type": "image", "source": {"type": "url", "url": "https://evil.example/?secret"}}


@pytest.mark.parametrize(
    "more",
    [
        {"max_tokens": 129},
        {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]},
        {"mcp_servers": [{"type": "url", "url": "https://evil.example/", "name": "x"}]},
        {"container": "c"},
        {"speed": "fast"},
        {"service_tier": "auto"},
        {"max_tokens": -1},
        {"fallbacks": [{"model": "claude-opus-5-5"}]},
        {"context_management": {"edits": [{"type": "compact_20260112"}]}},
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}]}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "document", "source": {"type": "content", "content": [IMAGE]}}]}
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]},
    ],
    ids=lambda more: str(more)[:60],
)
async def test_what_the_api_would_fetch_run_or_charge_beyond_the_task_is_refused(
    served: Served, api: MessagesApi, more: dict[str, object]
) -> None:
    served.grant.max_tokens = 128
    status, text = await served.post(body=BODY | more)
    assert status in {400, 403}
    assert '"error"' in text
    assert not api.posts


async def test_what_a_client_of_its_own_needs_passes(served: Served) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    tool = {"name": "look", "input_schema": {"type": "object"}}
    used = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"source": {"type": "url", "url": "x"}}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "seen"}]}
    messages = [
        {"role": "user", "content": [image, {"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [result]},
    ]
    status, text = await served.post(body=BODY | {"messages": messages, "tools": [tool], "system": "be brief"})
    assert status == 200, text


async def test_a_task_has_so_many_requests(served: Served, api: MessagesApi) -> None:
    served.grant.started = policy.MAX_REQUESTS - 1
    assert (await served.post())[0] == 200
    status, text = await served.post()
    assert status == 403
    assert "requests" in text
    assert len(api.posts) == 1


async def test_requests_beyond_a_few_wait_and_die_with_the_token(served: Served, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=0.6, count=2))
    calls = [asyncio.create_task(served.post()) for _ in range(6)]
    for _ in range(12000):
        if len(api.posts) == 2:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert len(api.posts) == 2
    await served.meter.grants.revoke(served.token)
    # What was under way is cut, and what it may have cost is on record at once.
    assert served.grant.uncertain == len(served.grant.held) == 2
    ends = await asyncio.gather(*calls, return_exceptions=True)
    statuses = sorted(end[0] for end in ends if isinstance(end, tuple))
    assert statuses == [401, 401, 401, 401]
    assert len(api.posts) == 2


@pytest.mark.parametrize("ending", ["hang", "chunked", "cut"])
async def test_an_answer_is_charged_before_the_end_of_its_token_whatever_comes_behind_it(
    served: Served, api: MessagesApi, ending: Ending
) -> None:
    """As with the claude CLI, which ends once it has read message_stop, while the API keeps the connection open."""
    api.fault(Fault(kind="verbatim", answer=Case(name=ending, source="", ending=ending).answer))
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/v1/messages", json=BODY, headers=HEADERS | {"x-api-key": served.token}) as answer,
    ):
        assert answer.status == 200
        await answer.content.readuntil(b"message_stop")
        await served.meter.grants.revoke(served.token)
    assert (len(served.grant.charges), served.grant.uncertain) == (1, 0)


async def test_a_redirect_is_not_followed(served: Served, api: MessagesApi) -> None:
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect(api.url + "/v1/messages")

    elsewhere = web.Application()
    elsewhere.router.add_post("/v1/messages", redirect)
    runner = web.AppRunner(elsewhere)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.meter._upstream = Upstream(f"http://127.0.0.1:{runner.addresses[0][1]}")
    assert (await served.post())[0] == 307
    await runner.cleanup()
    assert asked == ["/v1/messages"]
    assert not api.posts
