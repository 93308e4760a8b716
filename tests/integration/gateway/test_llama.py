"""Turns in both dialects through the gateway to the real llama.cpp, whose model says a script."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.support.gateway import GatewayProcess
from tests.support.llama_server import LlamaServer
from tests.support.scripted_gguf import tool_call

SAID = ["The ", "answer ", "is ", "42."]
TEXT = "".join(SAID)
ARGUMENTS = {"command": "echo \"made\" > made.txt; echo '{}'"}
ATTRIBUTION = "x-anthropic-billing-header: cc_version=2.1.330.{}; cc_entrypoint=cli;"


@asynccontextmanager
async def serving(directory: Path, at_user: list[str], **options: Any) -> AsyncIterator[GatewayProcess]:
    """A gateway before a llama.cpp that says `at_user`, and "done" after a tool's result."""
    dialect = options.pop("dialect", "chat")
    server = LlamaServer(directory, **options).script(at_user, ["It is ", "done."])
    await server.start()
    try:
        async with GatewayProcess(directory, f'[local.real]\nurl = "{server.url}"\ndialect = "{dialect}"\n') as gateway:
            await gateway.start()
            await gateway.until_up("local:real")
            yield gateway
            assert await gateway.stop() == 0
    finally:
        await server.stop()


def claude(gateway: GatewayProcess) -> anthropic.AsyncAnthropic:
    """The provider's SDK against the gateway, which must not need a second try."""
    return anthropic.AsyncAnthropic(base_url=gateway.url, auth_token=gateway.token, api_key=None, max_retries=0)


def chat(gateway: GatewayProcess) -> openai.AsyncOpenAI:
    """The same of the other dialect."""
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token, max_retries=0)


@pytest.mark.parametrize("dialect", ["chat", "messages"])
async def test_text_in_both_dialects_whole_and_streamed(tmp_path: Path, dialect: str) -> None:
    async with serving(tmp_path, SAID, dialect=dialect) as gateway:
        one, other = claude(gateway), chat(gateway)
        messages: Any = [{"role": "user", "content": "What is it?"}]
        whole = await one.messages.create(model="claude-farmhand-chat", max_tokens=50, messages=messages)
        assert (whole.content[0].text, whole.stop_reason) == (TEXT, "end_turn")  # type: ignore[union-attr]
        assert whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0) > 0
        async with one.messages.stream(model="any", max_tokens=50, messages=messages) as stream:
            pieces = [piece async for piece in stream.text_stream]
            final = await stream.get_final_message()
        assert ("".join(pieces), final.stop_reason) == (TEXT, "end_turn")
        assert len(pieces) > 1
        answer = await other.chat.completions.create(model="farmhand/chat", messages=messages)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (TEXT, "stop")
        chunks = [
            chunk async for chunk in await other.chat.completions.create(model="x", messages=messages, stream=True)
        ]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
        cut = await one.messages.create(model="x", max_tokens=2, messages=messages)
        assert cut.stop_reason == "max_tokens"
        counted = await one.messages.count_tokens(model="x", messages=messages)
        assert counted.input_tokens > 10
        listed = [model.id async for model in one.models.list()]
        assert listed == [model.id async for model in other.models.list()]
        assert {"claude-farmhand-agent", "farmhand/agent"} <= set(listed)
        assert (await other.models.retrieve("farmhand/agent")).id == "farmhand/agent"
        status = await gateway.status()
        assert {(row["outcome"], row["backend"]) for row in status["turns"]} == {("done", "local:real")}


@pytest.mark.parametrize("dialect", ["chat", "messages"])
async def test_a_tool_loop_in_messages(tmp_path: Path, dialect: str) -> None:
    async with serving(tmp_path, tool_call("bash", ARGUMENTS), dialect=dialect) as gateway:
        client = claude(gateway)
        tools: Any = [
            {"name": "bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}
        ]
        messages: Any = [{"role": "user", "content": "Make it."}]
        async with client.messages.stream(model="x", max_tokens=99, tools=tools, messages=messages) as stream:
            call = await stream.get_final_message()
        used = [block for block in call.content if block.type == "tool_use"]
        assert [(block.name, block.input) for block in used] == [("bash", ARGUMENTS)]
        assert call.stop_reason == "tool_use"
        result = {"type": "tool_result", "tool_use_id": used[0].id, "content": "ok"}
        messages += [{"role": "assistant", "content": [block.model_dump() for block in call.content]}]
        messages += [{"role": "user", "content": [result]}]
        last = await client.messages.create(model="x", max_tokens=99, tools=tools, messages=messages)
        assert (last.content[0].text, last.stop_reason) == ("It is done.", "end_turn")  # type: ignore[union-attr]


async def test_a_tool_loop_in_chat_completions(tmp_path: Path) -> None:
    async with serving(tmp_path, tool_call("bash", ARGUMENTS)) as gateway:
        client = chat(gateway)
        tools: Any = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]
        messages: Any = [{"role": "user", "content": "Make it."}]
        first = await client.chat.completions.create(model="x", tools=tools, messages=messages)
        call = first.choices[0].message.tool_calls[0]  # type: ignore[index]
        assert (call.function.name, json.loads(call.function.arguments)) == ("bash", ARGUMENTS)  # type: ignore[union-attr]
        messages += [first.choices[0].message.model_dump(exclude_none=True)]
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "ok"}]
        last = await client.chat.completions.create(model="x", tools=tools, messages=messages)
        assert last.choices[0].message.content == "It is done."


async def test_text_and_a_tool_loop_in_responses(tmp_path: Path) -> None:
    async with serving(tmp_path, tool_call("bash", ARGUMENTS)) as gateway:
        client = chat(gateway)
        tools: Any = [{"type": "function", "name": "bash", "parameters": {"type": "object"}, "strict": False}]
        items: Any = [{"role": "user", "content": "Make it."}]
        async with client.responses.stream(model="farmhand/agent", tools=tools, input=items) as stream:
            first = await (await stream.until_done()).get_final_response()
        [call] = [item for item in first.output if item.type == "function_call"]
        assert (call.name, json.loads(call.arguments)) == ("bash", ARGUMENTS)
        items += [
            call.model_dump(exclude={"parsed_arguments"}),
            {"type": "function_call_output", "call_id": call.call_id, "output": "ok"},
        ]
        last = await client.responses.create(model="farmhand/agent", tools=tools, input=items)
        assert (last.status, last.output_text) == ("completed", "It is done.")
        with pytest.raises(openai.BadRequestError, match="previous_response_id"):
            await client.responses.create(model="x", input="hi", previous_response_id="resp_1")


async def test_a_prompt_that_is_too_long_is_refused_in_the_words_that_clients_act_on(tmp_path: Path) -> None:
    # A byte of a prompt is one token here, so the gateway's own estimate is too low and the server refuses it.
    async with serving(tmp_path, SAID, context=512, slots=1) as gateway:
        messages: Any = [{"role": "user", "content": "word " * 200}]
        with pytest.raises(anthropic.BadRequestError) as refused:
            await claude(gateway).messages.create(model="x", max_tokens=5, messages=messages, stream=True)
        message = refused.value.body["error"]["message"]  # type: ignore[index]
        tokens, most = message.removeprefix("prompt is too long: ").removesuffix(" maximum").split(" tokens > ")
        assert (int(tokens) > 1000, int(most)) == (True, 512)
        with pytest.raises(openai.BadRequestError) as also:
            await chat(gateway).chat.completions.create(model="x", messages=messages)
        assert also.value.code == "context_length_exceeded"
        # One that no estimate lets through is answered here.
        with pytest.raises(anthropic.APIStatusError) as far:
            await claude(gateway).messages.create(
                model="x", max_tokens=5, messages=[{"role": "user", "content": "w" * 9999}]
            )
        assert far.value.status_code == 402
        assert "maximum" in str(far.value)


def refused() -> Iterator[tuple[str, dict[str, Any], str]]:
    """(dialect, what is added to a request, the path that is named)."""
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "CANARY"}}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    url = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:1/CANARY"}}
    for dialect in ("chat", "messages"):
        for block in (document, image, url):
            yield dialect, {"messages": [{"role": "user", "content": [block]}]}, "messages[0].content[0]"
        yield dialect, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"


@pytest.mark.parametrize("dialect", ["chat", "messages"])
async def test_what_would_be_lost_is_refused_once_with_its_path(tmp_path: Path, dialect: str) -> None:
    async with serving(tmp_path, SAID, dialect=dialect) as gateway:
        for _, more, path in (row for row in refused() if row[0] == dialect):
            body = {"model": "x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]} | more
            status, headers, answer = await gateway.call("POST", "/v1/messages", body)
            assert status == 400, answer
            assert path in answer["error"]["message"]
            assert headers["x-farmhand-decision"].startswith("fh-")


async def test_the_second_turn_finds_its_prefix_in_the_servers_cache(tmp_path: Path) -> None:
    """What names the account differs per conversation. With it, each prompt would be read from its start."""
    system = "You work in a repository. " * 200
    async with serving(tmp_path, SAID) as gateway:
        client = claude(gateway)

        async def ask(suffix: str, messages: Any) -> Any:
            blocks: Any = [{"type": "text", "text": ATTRIBUTION.format(suffix)}, {"type": "text", "text": system}]
            async with client.messages.stream(model="x", max_tokens=20, system=blocks, messages=messages) as stream:
                return await stream.get_final_message()

        first = await ask("aaa", [{"role": "user", "content": "one"}])
        more = [{"role": "user", "content": "one"}, {"role": "assistant", "content": TEXT}]
        second = await ask("bbb", [*more, {"role": "user", "content": "two"}])
        used = second.usage
        assert first.usage.input_tokens > 5000
        share = used.cache_read_input_tokens / (used.cache_read_input_tokens + used.input_tokens)
        assert share > 0.9, used
    with closing(sqlite3.connect(gateway.database)) as database:
        [(cached, cost)] = database.execute("SELECT sum(cache_read_input_tokens), sum(pico) FROM charge")
    assert (cached, cost) == (used.cache_read_input_tokens + first.usage.cache_read_input_tokens, 0)


async def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    server = LlamaServer(tmp_path).script(SAID)
    await server.start()
    port = int(server.url.rpartition(":")[2])
    try:
        async with GatewayProcess(tmp_path, f'[local.real]\nurl = "{server.url}"\n') as gateway:
            await gateway.start()
            await gateway.until_up("local:real")
            await server.stop()
            body = {"model": "x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
            seen = []
            for _ in range(200):  # the first may still believe in it
                status, _, answer = await gateway.call("POST", "/v1/messages", body)
                seen.append(status)
                if status == 402:
                    break
            assert set(seen) <= {402, 502}
            assert f"local real: not running (connection refused, 127.0.0.1:{port})" in answer["error"]["message"]
            await server.start(port)
            await gateway.until_up("local:real")
            status, _, answer = await gateway.call("POST", "/v1/messages", body)
            assert status == 200
            assert await gateway.stop() == 0
    finally:
        await server.stop()
