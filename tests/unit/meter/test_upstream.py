"""The meter's connections to the API against servers that say exactly what a test wants."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from farmhand.meter.upstream import Cut, Unreachable, Upstream, UpstreamConnection

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Heard:
    """What a server heard: its connections, and the requests on them."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.left = asyncio.Event()


@asynccontextmanager
async def serve(*answers: bytes, idle_s: float = 5.0, hang_up: bool = False) -> AsyncIterator[tuple[Upstream, Heard]]:
    """A server that gives `answers` in turn, the last one for ever, whatever it is asked."""
    heard, left = Heard(), list(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                heard.requests.append(head + await reader.readexactly(length))
                writer.write(left.pop(0) if len(left) > 1 else left[0])
                await writer.drain()
                if hang_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            heard.left.set()
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    upstream = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base", idle_s=idle_s)
    try:
        yield upstream, heard
    finally:
        upstream.close()
        server.close()


async def post(upstream: Upstream, body: bytes = b"{}") -> UpstreamConnection:
    connection = await upstream.connection()
    await connection.send("POST", upstream.base + "/v1/messages", {"x-api-key": "k"}, body)
    return connection


async def whole(upstream: Upstream) -> tuple[int, bytes]:
    connection = await post(upstream)
    try:
        return connection.status, await connection.read(1 << 30)
    finally:
        connection.close()


async def test_a_request_and_its_answer() -> None:
    async with serve(b"HTTP/1.1 201 Made\r\nRequest-ID: req_1\r\nContent-Length: 2\r\n\r\nok") as (upstream, heard):
        connection = await post(upstream, b'{"a":1}')
        assert (connection.status, connection.headers["request-id"]) == (201, "req_1")
        assert await connection.read(100) == b"ok"
    [request] = heard.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /base/v1/messages HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nx-api-key: k" in head
    assert body == b'{"a":1}'


async def test_a_connection_is_kept_and_used_again() -> None:
    async with serve(OK) as (upstream, heard):
        assert [await whole(upstream) for _ in range(3)] == [(200, b"ok")] * 3
        assert (heard.connections, len(heard.requests)) == (1, 3)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_server_that_does_not_keep_it_gets_a_new_one(answer: bytes) -> None:
    async with serve(answer) as (upstream, heard):
        assert [await whole(upstream) for _ in range(2)] == [(200, b"ok")] * 2
        assert heard.connections == 2


async def test_an_answer_that_was_not_read_to_its_end_ends_its_connection() -> None:
    async with serve(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\nok", OK) as (upstream, heard):
        (await post(upstream)).close()
        await asyncio.wait_for(heard.left.wait(), 120)
        assert await whole(upstream) == (200, b"ok")
        assert heard.connections == 2


async def test_who_is_cancelled_ends_the_connection() -> None:
    async with serve(b"") as (upstream, heard):
        asking = asyncio.create_task(post(upstream))
        while not heard.requests:  # noqa: ASYNC110  (the server's side is seen from here only)
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait_for(heard.left.wait(), 120)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\nay!\r\n0\r\n\r\n", b"okay!"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 None\r\n\r\n", b""),
    ],
    ids=["chunked", "informational", "no content"],
)
async def test_the_ways_an_answer_is_framed(answer: bytes, body: bytes) -> None:
    async with serve(answer) as (upstream, _):
        assert (await whole(upstream))[1] == body
        assert (await whole(upstream))[1] == body


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with serve(b"HTTP/1.1 200 OK\r\n\r\nto the end", hang_up=True) as (upstream, heard):
        assert [await whole(upstream) for _ in range(2)] == [(200, b"to the end")] * 2
        assert heard.connections == 2


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "hung up"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "hung up"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "no HTTP"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "no HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "no HTTP"),
        (b"", "hung up"),
    ],
    ids=["short", "short chunks", "bad chunk", "two lengths", "upgrade", "no HTTP", "endless head", "nothing"],
)
async def test_a_broken_answer_is_cut(answer: bytes, why: str) -> None:
    async with serve(answer, hang_up=True) as (upstream, _):
        with pytest.raises(Cut, match=why):
            await whole(upstream)


async def test_more_than_one_answer_is_never_taken_for_the_next_one() -> None:
    async with serve(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", OK) as (upstream, heard):
        connection = await post(upstream)
        assert await connection.read(100) == b"ok"
        connection.close()
        assert await whole(upstream) == (200, b"ok")
        assert heard.connections == 2


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"], ids=["head", "body"])
async def test_silence_is_a_timeout(answer: bytes) -> None:
    async with serve(answer, idle_s=0.1) as (upstream, _):
        with pytest.raises(TimeoutError):
            await whole(upstream)


async def test_an_unread_answer_is_not_buffered_without_bounds() -> None:
    size = 32 * 1024 * 1024
    async with serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size, idle_s=0.1) as (
        upstream,
        _,
    ):
        connection = await post(upstream)
        await asyncio.sleep(0.3)  # Longer than `idle_s`: waiting for the reader is no silence of the server's.
        assert connection._waiting_bytes < 2 * 1024 * 1024
        assert len(await connection.read(size)) == size
        connection.close()


async def test_a_connection_that_died_meanwhile_is_not_used() -> None:
    async with serve(OK, hang_up=True) as (upstream, heard):
        await whole(upstream)
        while upstream._kept:  # noqa: ASYNC110  (nobody is told)
            await asyncio.sleep(0.01)
        assert await whole(upstream) == (200, b"ok")
        assert heard.connections == 2


async def test_where_nobody_listens_nothing_is_sent() -> None:
    with pytest.raises(Unreachable, match=r"refused|Connect"):
        await Upstream("http://127.0.0.1:9").connection()


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b"])
async def test_a_header_with_a_line_break_is_not_sent(value: str) -> None:
    async with serve(OK) as (upstream, heard):
        connection = await upstream.connection()
        with pytest.raises(ValueError, match="line break"):
            await connection.send("POST", "/", {"user-agent": value}, b"")
        assert not heard.requests


async def test_a_get_has_no_body_and_no_length() -> None:
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        upstream = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base")
        async with upstream.request("GET", "/health", {"accept": "*/*"}) as answer:
            assert (answer.status, await answer.read(10)) == (200, b"ok")
    assert heads[0].startswith(b"GET /base/health HTTP/1.1\r\n")
    assert b"content-length" not in heads[0]


async def test_a_requests_body_is_free_once_the_answers_head_is_in() -> None:
    async with serve(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok") as (upstream, heard):
        body = bytearray(b"x" * 100_000)
        held = memoryview(body)  # a view can only be released by whoever holds it
        watched = weakref.ref(held)
        opened = upstream.request("POST", "/v1/messages", {}, held)  # type: ignore[arg-type]
        del held
        async with opened as answer:
            assert await answer.piece() == b"ok"
            gc.collect()
            assert watched() is None
        await heard.left.wait()  # the answer was not read to its end: the connection is closed


async def test_a_pooled_connection_that_its_server_closes_is_replaced_once() -> None:
    heard: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(set(heard))
        for _ in range(2 if number == 0 else 1):
            await reader.readuntil(b"\r\n\r\n")
            heard.append(number)
            if heard.count(0) < 2 or number == 1:
                writer.write(OK)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        upstream = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for _ in range(2):
            async with upstream.request("GET", "/", {}) as answer:
                assert await answer.read(10) == b"ok"
        assert heard == [0, 0, 1]  # the second request went out twice
        # A new connection that is closed is not replaced: its server may have the request.
        with pytest.raises(Cut):
            await upstream.request("GET", "/", {}).__aenter__()
