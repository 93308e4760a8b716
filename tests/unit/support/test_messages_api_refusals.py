"""What the loopback Messages API refuses, over raw HTTP: status, error type and message of the real one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.messages_api import DEFAULT_KEY, MessagesApi

HEADERS = {"x-api-key": DEFAULT_KEY, "anthropic-version": "2023-06-01", "content-type": "application/json"}
USER = {"role": "user", "content": "hello"}
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen"}
OLD = "claude-haiku-4-5"


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as running:
        yield running


def body(**changes: Any) -> dict[str, Any]:
    base = {"model": "claude-haiku-5-5", "max_tokens": 100, "messages": [USER]}
    return {name: value for name, value in (base | changes).items() if value is not ...}


async def post(
    api: MessagesApi, data: bytes | dict[str, Any], headers: dict[str, str] | None = None, path: str = "/v1/messages"
) -> tuple[int, dict[str, Any]]:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(api.url + path, data=raw, headers=HEADERS if headers is None else headers) as response,
    ):
        answer = json.loads(await response.read())
        assert response.headers["request-id"].startswith("req_")
        if response.status != 200:
            assert answer["type"] == "error"
            assert answer["request_id"] == response.headers["request-id"]
        return response.status, answer


async def refused(api: MessagesApi, data: dict[str, Any], message: str) -> None:
    status, answer = await post(api, data)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error"), answer
    assert answer["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("drop", "change", "status", "message"),
    [
        ("x-api-key", {}, 401, "x-api-key header is required"),
        ("", {"x-api-key": "sk-ant-test-wrong"}, 401, "invalid x-api-key"),
        ("x-api-key", {"authorization": "Bearer sk-ant-test-wrong"}, 401, "Invalid bearer token"),
        ("anthropic-version", {}, 400, "anthropic-version: header is required"),
        ("", {"anthropic-version": "2024-01-01"}, 400, 'anthropic-version: "2024-01-01" is not a valid version'),
        ("", {"content-type": "text/plain"}, 400, "Content-Type header must be 'application/json'"),
    ],
)
async def test_headers(api: MessagesApi, drop: str, change: dict[str, str], status: int, message: str) -> None:
    headers = {name: value for name, value in (HEADERS | change).items() if name != drop}
    got, answer = await post(api, body(), headers)
    assert (got, answer["error"]["message"]) == (status, message)
    assert answer["error"]["type"] == ("authentication_error" if status == 401 else "invalid_request_error")


async def test_key_as_bearer_token(api: MessagesApi) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != "x-api-key"}
    status, _ = await post(api, body(), headers | {"authorization": f"Bearer {DEFAULT_KEY}"})
    assert status == 200


async def test_a_login_s_token_is_a_bearer_token_with_its_beta(api: MessagesApi) -> None:
    token = "sk-ant-oat01-test-0000000000"
    api.state.keys = frozenset({DEFAULT_KEY, token})
    headers = {name: value for name, value in HEADERS.items() if name != "x-api-key"}
    bearer = headers | {"authorization": f"Bearer {token}"}
    assert (await post(api, body(), headers | {"x-api-key": token}))[0] == 401
    assert (await post(api, body(), bearer))[1]["error"][
        "message"
    ] == "OAuth authentication is currently not supported."
    assert (await post(api, body(), bearer | {"anthropic-beta": "x,oauth-2025-04-20"}))[0] == 200


@pytest.mark.parametrize("model", ["claude-3-5-haiku-20241022", "gpt-5", "haiku"])
async def test_unknown_model(api: MessagesApi, model: str) -> None:
    status, answer = await post(api, body(model=model))
    assert (status, answer["error"]) == (404, {"type": "not_found_error", "message": f"model: {model}"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": ...}, "max_tokens: Field required"),
        ({"messages": ...}, "messages: Field required"),
        ({"model": ...}, "model: Field required"),
        ({"model": 5}, "model: Input should be a valid string"),
        ({"max_tokens": "5"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"max_tokens": 128_001}, "max_tokens: 128001 > 128000, which is the maximum allowed number of output tokens"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"context_management": {}}, "context_management: Extra inputs are not permitted"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"metadata": {"who": "x"}}, "metadata.who: Extra inputs are not permitted"),
        ({"stop_sequences": [" "]}, "stop_sequences: each stop sequence must contain non-whitespace"),
        ({"service_tier": "fast"}, "service_tier: Input should be 'auto' or 'standard_only'"),
    ],
)
async def test_fields(api: MessagesApi, changes: dict[str, Any], message: str) -> None:
    await refused(api, body(**changes), message)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages: at least one message is required"),
        ("hello", "messages: Input should be a valid array"),
        ([{"role": "assistant", "content": "x"}, USER], 'messages: first message must use the "user" role'),
        ([{"role": "tool", "content": "x"}], "messages.0.role: Input should be 'user' or 'assistant'"),
        ([{"role": "user"}], "messages.0.content: Field required"),
        ([{"role": "user", "content": "x", "name": "y"}], "messages.0.name: Extra inputs are not permitted"),
        ([{"role": "user", "content": ""}], "messages.0: user messages must have non-empty content"),
        ([{"role": "user", "content": []}], "messages.0: user messages must have non-empty content"),
        ([{"role": "user", "content": " \n"}], "messages: text content blocks must contain non-whitespace text"),
        (
            [{"role": "user", "content": [{"type": "text", "text": ""}]}],
            "messages: text content blocks must be non-empty",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages.0.content.0.text.text: Field required"),
        (
            [{"role": "user", "content": [{"type": "sound"}]}],
            "messages.0.content.0: Input tag 'sound' found using 'type'",
        ),
        (
            [USER, {"role": "assistant", "content": "The answer is"}],
            "This model does not support assistant message prefill",
        ),
        ([USER, {"role": "assistant", "content": ""}, USER], "messages.1: all messages must have non-empty content"),
        (
            [{"role": "user", "content": [RESULT]}],
            "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_1.",
        ),
        (
            [USER, {"role": "assistant", "content": [USE]}, USER],
            "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1.",
        ),
        (
            [USER, *([{"role": "assistant", "content": [USE]}, {"role": "user", "content": [RESULT]}] * 2)],
            "messages: `tool_use` ids must be unique",
        ),
    ],
)
async def test_messages(api: MessagesApi, messages: Any, message: str) -> None:
    await refused(api, body(messages=messages, tools=[TOOL]), message)


async def test_system_role_needs_a_newer_model(api: MessagesApi) -> None:
    messages = [USER, {"role": "system", "content": "Be brief."}]
    assert (await post(api, body(messages=messages)))[0] == 200
    await refused(api, body(messages=messages, model=OLD), 'messages: Unexpected role "system".')


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tools": [{"name": "x"}]}, "tools.0.custom.input_schema: Field required"),
        ({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "tools.0.custom.name: String should match"),
        ({"tools": [{"name": "x", "input_schema": {}}]}, "tools.0.custom.input_schema.type: Field required"),
        (
            {"tools": [{"name": "x", "input_schema": {"type": "array"}}]},
            "tools.0.custom.input_schema.type: Input should",
        ),
        (
            {"tools": [{"name": "x", "input_schema": {"type": "object", "required": "y"}}]},
            "tools.0.custom.input_schema: JSON schema is invalid.",
        ),
        ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
        ({"tools": [TOOL | {"colour": 1}]}, "tools.0.custom.colour: Extra inputs are not permitted"),
        ({"tools": [TOOL | {"type": "sound_20250101"}]}, "tools.0: Input tag 'sound_20250101' found"),
        ({"tool_choice": {"type": "auto"}}, "tool_choice: tool_choice may only be specified while providing tools."),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "y"}}, "Tool 'y' not found in provided tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.tool.name: Field required"),
        ({"tools": [TOOL], "tool_choice": {"type": "must"}}, "tool_choice: Input tag 'must' found"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "any"}, "thinking": {"type": "adaptive"}},
            "Thinking may not be enabled when tool_choice forces tool use.",
        ),
    ],
)
async def test_tools(api: MessagesApi, changes: dict[str, Any], message: str) -> None:
    await refused(api, body(**changes), message)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (OLD, {"temperature": 1.1}, "temperature: Input should be less than or equal to 1"),
        (OLD, {"temperature": -0.1}, "temperature: Input should be greater than or equal to 0"),
        (OLD, {"temperature": 0.5, "top_p": 0.5}, "`temperature` and `top_p` cannot both be specified"),
        (OLD, {"max_tokens": 64_001}, "max_tokens: 64001 > 64000"),
        (
            OLD,
            {"thinking": {"type": "enabled", "budget_tokens": 1023}},
            "thinking.enabled.budget_tokens: Input should be",
        ),
        (
            OLD,
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            "`max_tokens` must be greater than `thinking.budget",
        ),
        (OLD, {"thinking": {"type": "enabled"}}, "thinking.enabled.budget_tokens: Field required"),
        (OLD, {"thinking": {"type": "adaptive"}}, '"thinking.type.adaptive" is not supported for this model.'),
        (OLD, {"output_config": {"effort": "low"}}, "This model does not support the effort parameter."),
        (
            OLD,
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000, "temperature": 0.5},
            "`temperature` may only be set to 1 when thinking is enabled.",
        ),
        ("claude-haiku-5-5", {"temperature": 0}, "`temperature` is deprecated for this model."),
        ("claude-haiku-5-5", {"top_k": 5}, "`top_k` is deprecated for this model."),
        (
            "claude-haiku-5-5",
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 3000},
            '"thinking.type.enabled" is not supported for this model.',
        ),
        ("claude-opus-5-5", {"thinking": {"type": "disabled"}}, '"thinking.type.disabled" is not supported'),
        ("claude-haiku-5-5", {"output_config": {"effort": "huge"}}, "output_config.effort: Input should be 'low'"),
        (
            "claude-haiku-5-5",
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
        ),
    ],
)
async def test_model_rules(api: MessagesApi, model: str, changes: dict[str, Any], message: str) -> None:
    await refused(api, body(model=model, **changes), message)


async def test_sampling_is_gone_from_the_newer_version(api: MessagesApi) -> None:
    headers = HEADERS | {"anthropic-version": "2026-10-21"}
    status, answer = await post(api, body(model=OLD, temperature=0.5), headers)
    assert (status, answer["error"]["message"]) == (400, "temperature: Extra inputs are not permitted")
    assert (await post(api, body(model=OLD, temperature=0.5)))[0] == 200


async def test_too_many_cache_markers(api: MessagesApi) -> None:
    block = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    await refused(api, body(system=[block] * 5), "A maximum of 4 blocks with cache_control may be provided. Found 5.")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model": NaN}', b'{"model": "\\ud800"}', b"[" * 100_000]
)
async def test_no_json_object(api: MessagesApi, raw: bytes) -> None:
    status, answer = await post(api, raw)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


async def test_too_large(api: MessagesApi) -> None:
    status, answer = await post(api, b'{"x":"' + b"a" * (32 * 1024 * 1024) + b'"}')
    assert (status, answer["error"]["type"]) == (413, "request_too_large")


async def test_prompt_longer_than_the_context(api: MessagesApi) -> None:
    text = "word " * 200_000
    await refused(api, body(model=OLD, messages=[{"role": "user", "content": text}]), "prompt is too long: 25")


@pytest.mark.parametrize(
    ("method", "path", "status", "type_"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("DELETE", "/v1/messages/count_tokens", 405, "invalid_request_error"),
        ("POST", "/v1/models", 405, "invalid_request_error"),
        ("POST", "/v1/complete", 404, "not_found_error"),
        ("GET", "/v1/models/claude-9", 404, "not_found_error"),
    ],
)
async def test_paths_and_methods(api: MessagesApi, method: str, path: str, status: int, type_: str) -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.request(method, api.url + path) as response:
        assert (response.status, (await response.json())["error"]["type"]) == (status, type_)


async def test_refusals_do_not_end_the_connection(api: MessagesApi) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(headers=HEADERS, connector=connector) as session:
        for data, status in [(b"{", 400), (json.dumps(body()).encode(), 200)]:
            async with session.post(api.url + "/v1/messages?beta=true", data=data) as response:
                assert response.status == status
                await response.read()
