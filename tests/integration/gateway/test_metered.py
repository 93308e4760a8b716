"""The metered backend before the stand-in for the provider's API: what is sent, what comes back, what it costs."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from farmhand.gateway.ledger import read
from tests.support.gateway_inside import CHAT, RESPONSES, TOKEN
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi, Rule, Step, Verbatim
from tests.support.messages_api.rules import ToolUse
from tests.support.paid import HAIKU, asked, billed, charges, paid, post, settings, some_turn, turn


async def test_a_turn_in_messages_keeps_its_bytes_but_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(13)  # noqa: S311
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        for _ in range(8):
            sent = some_turn(chance)
            status, headers, _ = await post(inside, sent)
            assert (status, headers["x-farmhand-backend"]) == (200, "metered")
            got = asked(api)[-1].body.encode()
            document = json.loads(sent)
            # The model is the one field that may differ: put back, the bodies are equal byte for byte.
            assert any(
                got[:at] + b'"claude-opus-9"' + got[at + len(HAIKU) + 2 :] == sent
                for at in range(len(got))
                if got.startswith(f'"{HAIKU}"'.encode(), at)
            ), (sent, got)
            assert json.loads(got) == document | {"model": HAIKU}
            assert list(json.loads(got)) == list(document)


async def test_headers_pass_and_the_key_is_only_the_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-of-a-prompt"
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        more: dict[str, str] = {
            "anthropic-beta": "effort-2025-11-24,of-tomorrow-2027-01-01",
            "anthropic-new": "1",
            "cookie": "c=1",
        }
        limits = {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49"}
        answer = json.dumps({"type": "message", "id": "m", "role": "assistant", "model": HAIKU, "content": []} | {
            "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 1}
        }).encode()  # fmt: skip
        given = {"content-type": "application/json", "anthropic-organization-id": "o", **limits}
        api.fault(Fault(kind="verbatim", answer=Verbatim(body=answer, headers=given)))
        body = turn(messages=[{"role": "user", "content": canary}])
        status, headers, text = await post(inside, json.dumps(body).encode(), **more)
        assert (status, text) == (200, answer)
        assert headers["anthropic-organization-id"] == "o"
        assert not [name for name in headers if "ratelimit" in name]
        sent = {name.lower(): value for name, value in asked(api)[0].headers.items()}
        assert sent["anthropic-beta"] == more["anthropic-beta"]
        assert sent["anthropic-new"] == "1"
        assert sent["x-api-key"] == DEFAULT_KEY
        assert not {"authorization", "cookie"} & set(sent)
        inside.answering.ledger.flush()
        files = b"".join(path.read_bytes() for path in tmp_path.rglob("gateway.db*"))
        shown = files + json.dumps(inside.answering.status()).encode() + inside.answering.metrics.text()
        assert not any(secret in shown for secret in (DEFAULT_KEY.encode(), canary.encode(), TOKEN.encode()))


async def test_a_field_that_nobody_knows_passes_and_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        status, _, body = await post(inside, turn(of_tomorrow={"a": 1}))
        # The stand-in knows it as little as we do, and says so itself.
        assert (status, b"of_tomorrow" in body, "of_tomorrow" in asked(api)[0].body) == (400, True, True)
        inside.answering.ledger.flush()
        (row,) = charges(tmp_path / "gateway.db")
        assert (row["terms"], row["pico"], row["held"]) == ("passed=of_tomorrow", 0, 0)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refusal_of_the_api_arrives_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    long = "prompt is too long: 9 tokens > 8 maximum"
    raw = f'{{"type":"error", "error":{{"type":"invalid_request_error","message":"{long}"}}}}'
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        api.fault(Fault(kind="status", status=status, raw=raw, count=3))
        assert (await post(inside, turn()))[::2] == (status, raw.encode())
        said = {"model": "x", "messages": [{"role": "user", "content": "hi"}]}
        found, _, body = await post(inside, said, CHAT)
        error = json.loads(body)["error"]
        assert (found, error["code"]) == (400, "context_length_exceeded")
        assert error["message"] == long
        streamed, headers, body = await post(inside, turn(stream=True))
        assert (streamed, body) == (status, raw.encode())
        assert headers["content-type"] == "application/json"
        inside.answering.ledger.flush()
        rows = charges(tmp_path / "gateway.db")
        assert [(row["outcome"], row["pico"], row["held"]) for row in rows] == [("refused", 0, 0)] * 3


async def test_a_told_wait_is_the_clients_and_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        api.fault(Fault(kind="status", status=429, retry_after=300))
        for _ in range(2):
            status, headers, _ = await asyncio.wait_for(post(inside, turn()), 60)
            assert status == 429
            assert 200 < int(headers["retry-after"]) <= 300
        # The second one was answered from what the API had told.
        assert len(asked(api)) == 1


async def test_a_refused_key_is_said_once_and_nothing_more_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = ("sk-ant-test-another-00000000000000",)
    async with MessagesApi(keys=another) as api, paid(tmp_path, api, monkeypatch) as inside:
        for _ in range(3):
            status, _, body = await post(inside, turn())
            assert status == 402
            assert b"the API refuses the gateway's key" in body
            assert DEFAULT_KEY.encode() not in body
        assert len(asked(api)) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_sdk_of_another_dialect_works_a_tool_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        steps = [Step(text="I look.", tool_use=ToolUse(name="look", input={"at": [1, 2]})), Step(text="It is 42.")]
        api.rule(Rule(contains="please look", steps=steps))
        client = openai.AsyncOpenAI(base_url=f"{inside.url}/v1", api_key=TOKEN, max_retries=0)
        function = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
        tools: Any = [{"type": "function", "function": function}]
        messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "please look"}]
        first = await _chat(client, messages, tools, streamed)
        (call,) = first.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"at": [1, 2]})
        assert (first.choices[0].message.content, first.choices[0].finish_reason) == ("I look.", "tool_calls")
        messages += [first.choices[0].message.model_dump(exclude_none=True)]
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "42"}]
        last = await _chat(client, messages, tools, streamed)
        assert (last.choices[0].message.content, last.choices[0].finish_reason) == ("It is 42.", "stop")
        sent = json.loads(asked(api)[-1].body)
        assert sent["system"] == [{"type": "text", "text": "Be brief."}]
        assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
        usage = last.usage
        assert usage is not None
        assert usage.completion_tokens == asked(api)[-1].usage["output_tokens"]
        await client.close()


async def _chat(client: openai.AsyncOpenAI, messages: Any, tools: Any, streamed: bool) -> Any:
    if not streamed:
        return await client.chat.completions.create(model="farmhand/agent", messages=messages, tools=tools)
    options: Any = {"include_usage": True}
    async with client.chat.completions.stream(
        model="farmhand/agent", messages=messages, tools=tools, stream_options=options
    ) as stream:
        return await stream.get_final_completion()


@pytest.mark.parametrize("streamed", [False, True])
async def test_responses_work_a_tool_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        steps = [Step(text="I look.", tool_use=ToolUse(name="look", input={"at": 1})), Step(text="It is 42.")]
        api.rule(Rule(contains="please look", steps=steps))
        client = openai.AsyncOpenAI(base_url=f"{inside.url}/v1", api_key=TOKEN, max_retries=0)
        tools: Any = [{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}]
        given: Any = [{"role": "user", "content": "please look"}]

        async def ask() -> Any:
            more: dict[str, Any] = {"model": "farmhand/agent", "input": given, "tools": tools, "store": False}
            if not streamed:
                return await client.responses.create(instructions="Be brief.", **more)
            async with client.responses.stream(instructions="Be brief.", **more) as stream:
                return await stream.get_final_response()

        first = await ask()
        assert [item.type for item in first.output] == ["message", "function_call"]
        call = first.output[1]
        assert (call.name, json.loads(call.arguments)) == ("look", {"at": 1})
        given += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in first.output[1:]]
        given += [{"type": "function_call_output", "call_id": call.call_id, "output": "42"}]
        last = await ask()
        assert (last.output_text, last.status) == ("It is 42.", "completed")
        assert last.usage.output_tokens == asked(api)[-1].usage["output_tokens"]
        await client.close()


async def test_a_limit_of_output_that_is_too_dear_is_answered_with_one_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = 'max_usd_per_turn = "0.01"'
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch, more=more) as inside:
        status, _, body = await post(inside, turn(max_tokens=64_000))
        message = json.loads(body)["error"]["message"]
        assert status == 400
        assert message.startswith("max_tokens: 64000 > ")
        assert "which is the maximum allowed number of output tokens for " in message
        assert asked(api) == []
        fits = int(message.split()[3].rstrip(","))
        assert 10_000 < fits < 64_000
        assert (await post(inside, turn(max_tokens=fits)))[0] == 200
        # An eighth is left for what the conversation grows by.
        assert (await post(inside, turn(max_tokens=fits + fits // 8)))[0] == 200
        assert (await post(inside, turn(max_tokens=fits + fits // 6)))[0] == 400


async def test_what_costs_beside_its_tokens_is_refused_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = {"type": "image", "source": {"type": "url", "url": "https://example.com/canary.png"}}
    cases: dict[str, dict[str, Any]] = {
        "speed": {"speed": "fast"},
        "service_tier": {"service_tier": "priority"},
        "inference_geo": {"inference_geo": "us"},
        "container": {"container": "c1"},
        "fallbacks": {"fallbacks": [{"model": "claude-opus-5-5"}]},
        "context_management.edits[0]": {"context_management": {"edits": [{"type": "compact_20260112"}]}},
    }
    refused: dict[str, dict[str, Any]] = {
        "hosted_tools": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "image_urls": {"messages": [{"role": "user", "content": [url]}]},
    }
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        for path, more in cases.items():
            status, _, body = await post(inside, turn(**more))
            assert status == 400, path
            assert json.loads(body)["error"]["message"].startswith(f"{path} asks for"), body
        for code, more in refused.items():
            status, headers, body = await post(inside, turn(**more))
            assert status == 400
            inside.answering.ledger.flush()
            record = read(tmp_path / "gateway.db", headers["x-farmhand-decision"])
            assert record is not None
            assert code in {one.reason.code for one in record.decision.refusals}
        assert asked(api) == []
        assert charges(tmp_path / "gateway.db") == []


async def test_a_count_costs_nothing_and_is_the_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        given = {"model": "x", "messages": [{"role": "user", "content": "hi"}]}
        status, _, body = await post(inside, given, "/v1/messages/count_tokens")
        assert (status, list(json.loads(body))) == (200, ["input_tokens"])
        assert charges(tmp_path / "gateway.db") == []


async def test_a_long_prompt_is_counted_before_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte may be a token: that would not fit. The API counts a quarter of it, which does."""
    long = turn(messages=[{"role": "user", "content": "word " * 16_000}])
    more = 'max_usd_per_turn = "0.005"'
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch, more=more) as inside:
        assert (await post(inside, long))[0] == 200
        assert len(asked(api, "/v1/messages/count_tokens")) == 1
        assert (await post(inside, turn()))[0] == 200
        assert len(asked(api, "/v1/messages/count_tokens")) == 1


async def test_responses_and_chat_need_no_limit_of_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        said = [{"role": "user", "content": "hi"}]
        assert (await post(inside, {"model": "x", "messages": said}, CHAT))[0] == 200
        assert (await post(inside, {"model": "x", "input": said}, RESPONSES))[0] == 200
        assert [json.loads(entry.body)["max_tokens"] for entry in asked(api)] == [8192, 8192]
        status, _, body = await post(inside, {"model": "x", "messages": said})
        assert (status, b"max_tokens" in body) == (400, True)
        # Each dialect counts (BerriAI/litellm#38176: two of three passed the budget by).
        inside.answering.ledger.flush()
        (state,) = [state for state in inside.answering.setup.states() if state.residency == "metered"]
        assert state.spent_pico == sum(billed(entry) for entry in asked(api)) > 0


async def test_a_client_that_leaves_ends_what_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with MessagesApi() as api, paid(tmp_path, api, monkeypatch) as inside:
        api.fault(Fault(kind="stalled", after_events=3))
        session = aiohttp.ClientSession(headers={"authorization": f"Bearer {TOKEN}"})
        async with session, session.post(f"{inside.url}/v1/messages", json=turn(stream=True)) as answer:
            await answer.content.readany()
        async with asyncio.timeout(60):
            while inside.answering.open_turns or not asked(api)[0].aborted:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.05)
        inside.answering.ledger.flush()
        (row,) = charges(tmp_path / "gateway.db")
        assert row["outcome"] == "cancelled"
        assert row["held"] > 0


def test_the_settings_of_the_tests_are_valid(tmp_path: Path) -> None:
    from farmhand.gateway.config import parse

    api = MessagesApi()
    api.url = "http://127.0.0.1:9"
    assert parse(settings(api)).metered.day_pico == 2 * 10**12
