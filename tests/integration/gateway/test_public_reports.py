"""What users of other gateways and local servers reported, tried on this one. Each test names its reports.

Those on web pages and rebound names are rows of tests/unit/gateway/test_guard.py: ggml-org/llama.cpp#25606, #25655,
nomic-ai/gpt4all#3587, LostRuins/koboldcpp#539, DavidVentura/offline-translator#284, vladar107/claudescope#40.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.gateway_inside import CHAT, MESSAGES, RESPONSES, between, opened, request, whole
from tests.support.local_server import END, SSE, LocalServerPlay, call_delta, chunk, delta, until
from tests.support.raw_http import send

#: Path → the sign of an error within a stream, and of a stream that ended well.
SIGNS = {
    MESSAGES: (b"event: error", b"message_stop"),
    CHAT: (b'data: {"error":', b"[DONE]"),
    RESPONSES: (b"response.failed", b"response.completed"),
}


@pytest.mark.parametrize("path", SIGNS)
async def test_a_client_that_aborts_leaves_the_gateway_running(tmp_path: Path, path: str) -> None:
    """musistudio/claude-code-router#1506, Wei-Shaw/claude-relay-service#857: the process died of it."""
    go = asyncio.Event()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + delta("one"))
        await go.wait()
        writer.write(delta("two") + b"zz no chunk")  # and the upstream breaks after the client has gone

    async with between(tmp_path, play) as (inside, _):
        for _ in range(20):
            _, writer = await opened(inside, request(inside, path))
            await until(lambda: bool(inside.answering.open_turns))
            writer.transport.abort()
        go.set()
        await until(lambda: inside.answering.open_turns == 0)
        assert inside.answering.metrics.counts()
        assert (await send(inside.port, request(inside, path, stream=7))).status == 400


@pytest.mark.parametrize("path", SIGNS)
async def test_a_stream_that_ends_within_a_tool_call_is_an_error(tmp_path: Path, path: str) -> None:
    """BerriAI/litellm#32159, #20347, NVIDIA/TensorRT-LLM#18289: it looked like an answer that was complete."""

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + call_delta('{"command": "rm -r', "bash") + b"0\r\n\r\n")
        await writer.drain()

    error, good = SIGNS[path]
    async with between(tmp_path, play) as (inside, _):
        seen = await whole(inside, request(inside, path))
        assert error in seen.body
        assert good not in seen.body


@pytest.mark.parametrize("path", SIGNS)
async def test_fragments_of_arguments_are_passed_on_as_they_come(tmp_path: Path, path: str) -> None:
    """router-for-me/CLIProxyAPI#4727: they were kept until the block had ended, for 14 seconds."""
    go = asyncio.Event()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + call_delta('{"command": "first', "bash"))
        await go.wait()
        writer.write(call_delta(' second"}') + END)
        await writer.drain()

    async with between(tmp_path, play) as (inside, _):
        reader, writer = await opened(inside, request(inside, path))
        seen = await reader.readuntil(b"first")
        assert b"second" not in seen
        go.set()
        assert b"second" in await reader.readuntil(b"0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize("path", SIGNS)
async def test_an_answer_that_was_cut_by_its_limit_has_an_end(tmp_path: Path, path: str) -> None:
    """maximhq/bifrost#6081: neither message_delta nor message_stop came after max_tokens."""

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + delta("one") + delta("", "length") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    ends = {
        MESSAGES: b'"stop_reason":"max_tokens"',
        CHAT: b'"finish_reason": "length"',
        RESPONSES: b"max_output_tokens",
    }
    async with between(tmp_path, play) as (inside, _):
        seen = await whole(inside, request(inside, path))
        assert ends[path] in seen.body
        assert SIGNS[path][0] not in seen.body


async def test_headers_of_a_local_server_stay_behind_the_gateway(tmp_path: Path) -> None:
    """ggml-org/llama.cpp#25606: its server reflects any Origin. What it says to browsers must not be passed on."""
    said = [
        "access-control-allow-origin: *",
        "access-control-allow-credentials: true",
        "set-cookie: a=b",
        "location: http://evil.example/",
        "server: llama.cpp",
    ]

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        headers = "\r\n".join(said).encode()
        if b'"stream":true' in local.turns[-1]:
            writer.write(SSE[:-2] + headers + b"\r\n\r\n" + delta("one") + END)
        else:
            text = json.dumps({"error": {"message": "no"}}).encode()
            writer.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n" % len(text) + headers + b"\r\n\r\n" + text
            )
        await writer.drain()

    async with between(tmp_path, play) as (inside, _):
        streamed = await whole(inside, request(inside))
        failed = await send(inside.port, request(inside, stream=False))
        assert (streamed.status, failed.status) == (200, 400)
        for answer in (streamed, failed):
            assert not {line.partition(":")[0] for line in said[:-1]} & set(answer.headers)
            assert answer.headers["x-farmhand-backend"] == "local:play"


async def test_an_upstreams_own_words_reach_a_client_of_its_dialect(tmp_path: Path) -> None:
    """Claude Code and others act on the wording of an error; a gateway that wraps it breaks their recovery."""
    words = b'{"error": {"message": "tools[3].function.name: invalid",  "type": "invalid_request_error", "param": "x"}}'

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 422 Unprocessable\r\ncontent-length: %d\r\n\r\n" % len(words) + words)
        await writer.drain()

    async with between(tmp_path, play) as (inside, _):
        same = await send(inside.port, request(inside, CHAT))
        assert (same.status, same.body) == (422, words)
        other = await send(inside.port, request(inside, MESSAGES))
        assert other.status == 422
        assert "tools[3].function.name: invalid" in json.loads(other.body)["error"]["message"]
