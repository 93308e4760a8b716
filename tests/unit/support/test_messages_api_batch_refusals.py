"""What the Message Batches endpoints refuse, over raw HTTP, and the faults and controls that raw HTTP shows."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi, Plan, batch_check

HEADERS = {"x-api-key": DEFAULT_KEY, "anthropic-version": "2023-06-01", "content-type": "application/json"}
PATH = "/v1/messages/batches"
PARAMS = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi(batch_plan=Plan(after_ms=None)) as running:
        yield running


def ask(custom_id: Any = "ask-1", **changes: Any) -> dict[str, Any]:
    base = {"custom_id": custom_id, "params": PARAMS} | changes
    return {name: value for name, value in base.items() if value is not ...}


async def call(
    api: MessagesApi, method: str, path: str = PATH, data: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    raw = data if isinstance(data, bytes | None) else json.dumps(data).encode()
    async with (
        aiohttp.ClientSession(headers=HEADERS if headers is None else headers) as session,
        session.request(method, api.url + path, data=raw) as response,
    ):
        answer = json.loads(await response.read())
        if response.status != 200 and not path.startswith("/_control"):
            assert answer["type"] == "error"
            assert answer["request_id"] == response.headers["request-id"]
        return response.status, answer


async def create(api: MessagesApi, count: int = 1) -> str:
    status, answer = await call(api, "POST", data={"requests": [ask(f"ask-{i}") for i in range(count)]})
    assert status == 200
    return str(answer["id"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "requests: Field required"),
        ({"requests": [ask()], "name": "x"}, "name: Extra inputs are not permitted"),
        ({"requests": {}}, "requests: Input should be a valid array"),
        ({"requests": None}, "requests: Input should be a valid array"),
        ({"requests": []}, "requests: List should have at least 1 item after validation, not 0"),
        ({"requests": [1]}, "requests.0: Input should be a valid dictionary"),
        ({"requests": [ask(custom_id=...)]}, "requests.0.custom_id: Field required"),
        ({"requests": [ask(), ask("b", params=...)]}, "requests.1.params: Field required"),
        ({"requests": [ask(model="x")]}, "requests.0.model: Extra inputs are not permitted"),
        ({"requests": [ask(7)]}, "requests.0.custom_id: Input should be a valid string"),
        ({"requests": [ask("")]}, "requests.0.custom_id: String should have at least 1 character"),
        ({"requests": [ask("a" * 65)]}, "requests.0.custom_id: String should have at most 64 characters"),
        ({"requests": [ask("a b")]}, "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"),
        ({"requests": [ask("a\n")]}, "requests.0.custom_id: String should match pattern"),
        ({"requests": [ask("ä")]}, "requests.0.custom_id: String should match pattern"),
        ({"requests": [ask("a"), ask("b"), ask("a")]}, "requests.2.custom_id: Duplicate custom_id 'a'"),
        ({"requests": [ask(params=[])]}, "requests.0.params: Input should be a valid dictionary"),
        ({"requests": [ask(params=None)]}, "requests.0.params: Input should be a valid dictionary"),
    ],
)
async def test_create(api: MessagesApi, body: dict[str, Any], message: str) -> None:
    status, answer = await call(api, "POST", data=body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert answer["error"]["message"].startswith(message)
    assert api.batches.all() == []


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"requests": NaN}', b'{"x": "\\ud800"}', b"[" * 100_000, b"{} {}"]
)
async def test_no_json_object(api: MessagesApi, raw: bytes) -> None:
    status, answer = await call(api, "POST", data=raw)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


async def test_longest_custom_id(api: MessagesApi) -> None:
    assert (await call(api, "POST", data={"requests": [ask("aZ09_-" + "x" * 58)]}))[0] == 200


async def test_too_many_requests(api: MessagesApi) -> None:
    raw = b'{"requests":[' + b",".join(b'{"custom_id":"a%d","params":{}}' % i for i in range(100_001)) + b"]}"
    status, answer = await call(api, "POST", data=raw)
    assert (status, answer["error"]["message"]) == (
        400,
        "requests: List should have at most 100000 items after validation, not 100001",
    )


async def test_too_large(api: MessagesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch_check.MAX_BYTES == 256 * 1024 * 1024
    big = {"requests": [ask(params=PARAMS | {"system": "x" * (33 * 1024 * 1024)})]}
    assert (await call(api, "POST", data=big))[0] == 200  # more than /v1/messages takes
    monkeypatch.setattr(batch_check, "MAX_BYTES", 1000)
    status, answer = await call(api, "POST", data={"requests": [ask(params={"x": "y" * 1000})]})
    assert (status, answer["error"]["type"]) == (413, "request_too_large")


async def test_the_memory_of_a_large_batch() -> None:
    params = json.dumps(PARAMS | {"system": "x" * 1000}).encode()
    raw = b'{"requests":[' + b",".join(b'{"custom_id":"a%d","params":%s}' % (i, params) for i in range(10_000)) + b"]}"
    tracemalloc.start()
    items = batch_check.parse(raw)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(items) == 10_000
    assert kept < 8_000_000  # the items refer to the body; they do not copy it
    assert peak < 3 * len(raw)


@pytest.mark.parametrize(
    ("method", "path", "status", "type_"),
    [
        ("PUT", PATH, 405, "invalid_request_error"),
        ("POST", PATH + "/{id}", 405, "invalid_request_error"),
        ("GET", PATH + "/{id}/cancel", 405, "invalid_request_error"),
        ("POST", PATH + "/{id}/results", 405, "invalid_request_error"),
        ("GET", PATH + "/{id}/other", 404, "not_found_error"),
        ("GET", PATH + "/{id}/results/x", 404, "not_found_error"),
        ("GET", PATH + "es", 404, "not_found_error"),
        ("GET", PATH + "/msgbatch_01none", 404, "not_found_error"),
        ("DELETE", PATH + "/msgbatch_01none", 404, "not_found_error"),
        ("GET", PATH + "/msgbatch_01none/results", 404, "not_found_error"),
        ("POST", PATH + "/msgbatch_01none/cancel", 404, "not_found_error"),
        ("GET", PATH + "/{id}/results", 400, "invalid_request_error"),  # not ended
        ("DELETE", PATH + "/{id}", 400, "invalid_request_error"),  # not ended
        ("GET", PATH + "?limit=0", 400, "invalid_request_error"),
        ("GET", PATH + "?limit=1001", 400, "invalid_request_error"),
        ("GET", PATH + "?limit=ten", 400, "invalid_request_error"),
        ("GET", PATH + "?after_id=x", 400, "invalid_request_error"),
        ("GET", PATH + "?after_id={id}&before_id={id}", 400, "invalid_request_error"),
        ("GET", PATH + "/?limit=1000&beta=true", 200, ""),
    ],
)
async def test_paths_and_methods(api: MessagesApi, method: str, path: str, status: int, type_: str) -> None:
    id_ = await create(api)
    found, answer = await call(api, method, path.replace("{id}", id_))
    assert (found, answer.get("error", {}).get("type", "")) == (status, type_)


async def test_what_an_ended_batch_refuses(api: MessagesApi) -> None:
    id_ = await create(api)
    await api.advance(action="finish")
    status, answer = await call(api, "POST", f"{PATH}/{id_}/cancel")
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    await api.advance(action="archive", id=id_)
    assert (await call(api, "GET", f"{PATH}/{id_}/results"))[0] == 404


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_keys_are_checked(api: MessagesApi, method: str) -> None:
    data = {"requests": [ask()]} if method == "POST" else None
    assert (await call(api, method, data=data, headers=HEADERS | {"x-api-key": "sk-ant-test-wrong"}))[0] == 401
    no_version = {name: value for name, value in HEADERS.items() if name != "anthropic-version"}
    assert (await call(api, method, data=data, headers=no_version))[0] == 400
    assert api.batches.all() == []
    id_ = await create(api)
    api.state.keys = frozenset({"sk-ant-test-second"})
    assert (await call(api, "GET", f"{PATH}/{id_}"))[0] == 401
    second = HEADERS | {"x-api-key": "sk-ant-test-second"}
    assert (await call(api, "GET", f"{PATH}/{id_}", headers=second))[0] == 200  # keys of one workspace


async def test_content_type(api: MessagesApi) -> None:
    headers = HEADERS | {"content-type": "text/plain"}
    assert (await call(api, "POST", data=b'{"requests": []}', headers=headers))[0] == 400


async def test_faults_of_whole_calls(api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=529, path=PATH, method="POST"))
    api.fault(Fault(kind="status", status=404, path=PATH + "/msgbatch_*"))
    data = {"requests": [ask()]}
    assert (await call(api, "GET"))[0] == 200
    status, answer = await call(api, "POST", data=data)
    assert (status, answer["error"]["type"]) == (529, "overloaded_error")
    assert api.batches.all() == []
    id_ = await create(api)
    assert (await call(api, "GET", f"{PATH}/{id_}"))[0] == 404  # once, as it is seen right after creation
    assert (await call(api, "GET", f"{PATH}/{id_}"))[0] == 200
    api.fault(Fault(kind="status", status=500))  # without a path it is about messages only
    assert (await call(api, "POST", data=data))[0] == 200


@pytest.mark.parametrize(("kind", "made"), [("reset", 0), ("cut", 1)])
async def test_creation_whose_answer_is_lost(api: MessagesApi, kind: Any, made: int) -> None:
    api.fault(Fault(kind=kind, path=PATH))
    with pytest.raises(aiohttp.ClientError):
        await call(api, "POST", data={"requests": [ask()]})
    assert len(api.batches.all()) == made


async def test_results_that_break_off(api: MessagesApi) -> None:
    id_ = await create(api, 10)
    await api.advance(action="finish")
    api.fault(Fault(kind="cut", after_events=4, path=PATH + "/*/results"))
    got: list[bytes] = []

    async def read(response: aiohttp.ClientResponse) -> None:
        async for part in response.content.iter_any():
            got.append(part)

    async with aiohttp.ClientSession(headers=HEADERS) as session:
        async with session.get(f"{api.url}{PATH}/{id_}/results") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await read(response)
        *whole, part = b"".join(got).split(b"\n")
        assert [json.loads(line)["result"]["type"] for line in whole] == ["succeeded"] * 4
        assert part.startswith(b'{"custom_id"')
        async with session.get(f"{api.url}{PATH}/{id_}/results") as response:
            assert response.headers["content-type"] == "application/x-jsonl"
            assert len((await response.text()).splitlines()) == 10


async def test_control(api: MessagesApi) -> None:
    plan = {"after_ms": None, "expires_ms": 5000.0, "cancel_ms": 0.0, "in_flight": 1, "order": "given"}
    assert (await call(api, "PUT", "/_control/batches/plan", plan)) == (200, plan)
    assert (await call(api, "GET", "/_control/batches/plan"))[1] == plan
    fault = {"custom_id": "ask-1", "status": 529}
    assert (await call(api, "POST", "/_control/batches/faults", [fault]))[1][0]["result"] == "errored"
    id_ = await create(api, 4)
    moved = (await call(api, "POST", "/_control/batches", {"action": "process", "fraction": 0.5}))[1][0]
    assert (moved["batch"]["id"], moved["processed"], moved["requests"]) == (id_, 2, 4)
    assert (await call(api, "GET", "/_control/batches/faults"))[1] == []
    one = (await call(api, "GET", f"/_control/batches/{id_}"))[1]
    assert one["outcomes"] == {"ask-0": "succeeded", "ask-1": "errored"}
    assert one["usage"]["input_tokens"] == 10
    assert (await call(api, "POST", "/_control/batches", {"action": "expire", "id": id_}))[0] == 200
    assert (await call(api, "GET", "/_control/batches"))[1][0]["batch"]["request_counts"] == {
        "processing": 0, "succeeded": 1, "errored": 1, "canceled": 0, "expired": 2,
    }  # fmt: skip
    await call(api, "POST", "/_control/reset")
    assert (await call(api, "GET", "/_control/batches"))[1] == []


@pytest.mark.parametrize(
    ("method", "path", "value", "status"),
    [
        ("PUT", "batches/plan", {"after": 1}, 400),
        ("PUT", "batches/plan", {"after_ms": -1}, 400),
        ("POST", "batches", {"action": "stop"}, 400),
        ("POST", "batches", {"action": "process", "fraction": 2}, 400),
        ("POST", "batches", {"action": "finish", "id": "none"}, 404),
        ("POST", "batches/faults", {"result": "canceled"}, 400),
        ("GET", "batches/none", None, 404),
    ],
)
async def test_control_says_what_is_wrong(api: MessagesApi, method: str, path: str, value: Any, status: int) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{api.url}/_control/{path}", json=value) as response,
    ):
        assert response.status == status
        assert (await response.text()).startswith("/_control/batches")
