"""Streams between a client and a local server that behaves as the real one does only by chance."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from farmhand.gateway import answering, client_stream
from tests.support.gateway_inside import CHAT, MESSAGES, all_end, between, opened, request, whole
from tests.support.local_server import END, SSE, LocalServerPlay, chunk, delta, until
from tests.support.raw_http import send

PATHS = {"messages": MESSAGES, "chat": CHAT}


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_silent_backend_is_bridged_with_pings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    monkeypatch.setattr(client_stream, "SILENCE_S", 0.05)
    monkeypatch.setattr(client_stream, "LOOK_S", 0.02)
    go = asyncio.Event()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + delta("one"))
        await go.wait()
        writer.write(delta("two") + END)
        await writer.drain()

    async with between(tmp_path, play) as (inside, _):
        reader, writer = await opened(inside, request(inside, PATHS[dialect]))
        ping = b"event: ping" if dialect == "messages" else b": ping\n\n"
        seen = b""
        while seen.count(ping) < 3:
            seen += await reader.read(1000)
        go.set()
        seen += await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        assert seen.index(b"one") < seen.index(ping) < seen.index(b"two")
        # Between two events only: whoever takes the pings out has a stream without a gap.
        for event in _unchunked(seen).split(b"\n\n"):
            assert event.startswith((b"event: ", b"data: ", b": ping")) or not event
    assert inside.answering._pings._timer is None or not inside.answering._pings._open


async def test_no_ping_gets_into_an_event_that_is_not_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's own Messages stream is passed on as it comes, also in halves."""
    monkeypatch.setattr(client_stream, "SILENCE_S", 0.02)
    monkeypatch.setattr(client_stream, "LOOK_S", 0.01)

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + chunk(b'event: message_start\ndata: {"type":"mess'))
        await writer.drain()
        await asyncio.sleep(0.3)
        writer.write(chunk(b'age_start"}\n\n'))
        await writer.drain()
        await asyncio.sleep(0.3)
        writer.write(chunk(b'event: message_stop\ndata: {"type":"message_stop"}\n\n') + b"0\r\n\r\n")
        await writer.drain()

    async with between(tmp_path, play, dialect='"messages"') as (inside, _):
        reader, writer = await opened(inside, request(inside))
        seen = _unchunked(await reader.readuntil(b"\r\n0\r\n\r\n"))
        writer.close()
        events = [event for event in seen.split(b"\n\n") if event]
        assert events[0] == b'event: message_start\ndata: {"type":"message_start"}'
        assert events[-1] == b'event: message_stop\ndata: {"type":"message_stop"}'
        assert {event.split(b"\n")[0] for event in events[1:-1]} == {b"event: ping"}


def _unchunked(seen: bytes) -> bytes:
    body, found = seen.partition(b"\r\n\r\n")[2], b""
    while body:
        size, _, body = body.partition(b"\r\n")
        found += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return found


async def test_a_quick_refusal_keeps_its_status_and_a_late_one_is_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = asyncio.Event()
    error = {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 7, "n_ctx": 5, "message": "too long"}}
    text = json.dumps(error).encode()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
        await writer.drain()

    async with between(tmp_path, play) as (inside, _):
        hold.set()
        quick = await send(inside.port, request(inside))
        assert quick.status == 400
        assert json.loads(quick.body)["error"]["message"] == "prompt is too long: 7 tokens > 5 maximum"
        monkeypatch.setattr(answering, "HOLD_S", 0.05)
        monkeypatch.setattr(client_stream, "SILENCE_S", 0.05)
        monkeypatch.setattr(client_stream, "LOOK_S", 0.02)
        hold.clear()
        reader, writer = await opened(inside, request(inside))
        seen = await reader.readuntil(b"event: ping")  # the head is out, and the client is kept waiting
        assert seen.startswith(b"HTTP/1.1 200")
        hold.set()
        rest = await reader.readuntil(b"0\r\n\r\n")
        assert b"event: error" in rest
        assert b"prompt is too long: 7 tokens > 5 maximum" in rest
        writer.close()


async def test_a_client_that_leaves_ends_the_upstream_at_once(tmp_path: Path) -> None:
    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        if b"early" not in local.turns[-1]:
            writer.write(SSE + delta("one"))
        await asyncio.Event().wait()

    async with between(tmp_path, play) as (inside, local):
        for name in ("early", "late"):  # before the head, and amid the answer
            local.left.clear()
            local.turns.clear()
            reader, writer = await opened(inside, request(inside, messages=[{"role": "user", "content": name}]))
            if name == "late":
                await reader.readuntil(b"one")
            await until(lambda: bool(local.turns))
            writer.transport.abort()
            await asyncio.wait_for(local.left.wait(), 120)
            await until(lambda: inside.answering.open_turns == 0)
        counted = {row["outcome"]: row["turns"] for row in inside.answering.metrics.counts()}
        assert counted == {"cancelled": 2}


async def test_a_stream_that_is_cut_ends_with_an_error_and_never_in_silence(tmp_path: Path) -> None:
    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + delta("one") + (b"0\r\n\r\n" if b"tidy" in local.turns[-1] else b"ff\r\ndata: {"))
        await writer.drain()
        writer.close()

    async with between(tmp_path, play) as (inside, _):
        for how in ("tidy", "torn"):
            for path, sign in ((MESSAGES, b"event: error"), (CHAT, b'data: {"error":')):
                seen = await whole(inside, request(inside, path, messages=[{"role": "user", "content": how}]))
                assert b"one" in seen.body
                assert sign in seen.body, (how, path)
                assert b"message_stop" not in seen.body
                assert b"[DONE]" not in seen.body
        assert {row["outcome"] for row in inside.answering.metrics.counts()} == {"failed"}


async def test_a_server_that_hangs_up_before_its_head_is_a_502(tmp_path: Path) -> None:
    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with between(tmp_path, play) as (inside, _):
        for path in PATHS.values():
            answer = await send(inside.port, request(inside, path))
            assert answer.status == 502
            assert json.loads(answer.body)["error"]["message"]


async def test_a_client_that_does_not_read_stops_the_upstream(tmp_path: Path) -> None:
    written = 0

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(SSE)
        for _ in range(4000):
            piece = delta("x" * 10_000)
            writer.write(piece)
            await writer.drain()
            written += len(piece)
        writer.write(END)
        await writer.drain()

    async with between(tmp_path, play) as (inside, _):
        reader, writer = await opened(inside, request(inside))
        await until(lambda: written > 0)
        before = -1
        while before != written:  # until it stands still: all buffers on the way are full
            before = written
            await asyncio.sleep(0.5)
        assert 0 < written < 39_000_000
        while await reader.read(1_000_000) and written < 39_000_000:
            pass
        assert written >= 39_000_000
        writer.close()


async def test_more_turns_than_the_limit_are_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_TURNS", 3)
    go = asyncio.Event()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(SSE + END)
        await writer.drain()

    async with between(tmp_path, play) as (inside, _):
        waiting = [await opened(inside, request(inside)) for _ in range(3)]
        await until(lambda: inside.answering.open_turns == 3)
        busy = await send(inside.port, request(inside))
        assert (busy.status, busy.headers["retry-after"]) == (503, "1")
        go.set()
        await all_end(inside, waiting)


async def test_a_requests_body_is_free_while_its_answer_streams(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + delta("one"))
        await go.wait()
        writer.write(END)
        await writer.drain()

    async with between(tmp_path, play, context="10000000") as (inside, local):
        tracemalloc.start()
        try:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            sent = request(inside, messages=[{"role": "user", "content": "words " * 1_500_000}])
            assert len(sent) > 9_000_000
            reader, writer = await opened(inside, sent)
            del sent
            await reader.readuntil(b"one")
            local.turns.clear()
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
        finally:
            tracemalloc.stop()
        assert inside.server.room.free == 64 * 1024 * 1024
        go.set()
        await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_a_turn_waits_for_a_free_slot_of_its_server(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(SSE + delta("one") + END)
        await writer.drain()

    async with between(tmp_path, play, slots="2") as (inside, local):
        waiting = [await opened(inside, request(inside)) for _ in range(5)]
        await until(lambda: inside.answering.open_turns == 5 and len(local.turns) == 2)
        waiting[4][1].transport.abort()  # one that leaves while it waits costs nobody a slot
        await until(lambda: inside.answering.open_turns == 4)
        assert len(local.turns) == 2
        go.set()
        for reader, writer in waiting[:4]:
            assert b"message_stop" in await reader.readuntil(b"0\r\n\r\n")
            writer.close()
        assert len(local.turns) == 4


async def test_what_only_advises_is_left_out_and_said(tmp_path: Path) -> None:
    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + delta("one") + END)
        await writer.drain()

    async with between(tmp_path, play) as (inside, local):
        extra: dict[str, Any] = {"metadata": {"user_id": "u"}, "context_management": {"edits": []}}
        seen = await whole(inside, request(inside, **extra))
        assert {"metadata", "context_management"} <= set(seen.headers["x-farmhand-omitted"].split(", "))
        assert b"user_id" not in local.turns[0]


@pytest.mark.parametrize("status", [204, 302, 307])
async def test_a_redirect_is_not_followed_and_said(tmp_path: Path, status: int) -> None:
    async with LocalServerPlay({}).serve() as other:

        async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 %d X\r\nlocation: %b\r\n\r\n" % (status, other.url.encode()))
            await writer.drain()

        async with between(tmp_path, play) as (inside, _):
            seen = await send(inside.port, request(inside, MESSAGES))
            assert (seen.status, f"answered HTTP {status}".encode() in seen.body) == (502, True)
            assert other.asked == []
