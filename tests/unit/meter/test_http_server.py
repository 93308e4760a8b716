"""The meter's own HTTP server, spoken to byte by byte."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from farmhand.meter import http_server
from farmhand.meter.errors import ApiError
from farmhand.meter.http_server import BodyRoom, HttpServer

MAX_BODY = 1024 * 1024
HEAD = b"POST /%b HTTP/1.1\r\nHost: localhost\r\n"


class Talk:
    """A connection to the server; `seen` are the requests that a handler got, `left` those that were cancelled."""

    def __init__(self, server: HttpServer, port: int) -> None:
        self.server = server
        self.port = port
        self.seen: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.left = asyncio.Event()
        self.go_on = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """What is asked for is the path."""
        path = request.raw_path
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if path == "/unread":
            return web.Response(status=401, body=b"no")
        if path == "/wait":
            await self._wait()
        if path == "/broken":
            raise RuntimeError("a bug")
        try:
            body = await self.server.read(request)
        except ApiError as problem:
            return web.Response(status=problem.status, text=problem.message)
        self.seen.append((request.method, path, body))
        if path == "/hold":
            await self._wait()
        return web.Response(body=b"got %d" % len(body))

    async def _wait(self) -> None:
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def say(self, *parts: bytes, until: bytes = b"", pause_s: float = 0.02) -> bytes:
        """What comes back until `until`, or until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        heard = b""
        with suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await asyncio.sleep(pause_s)
            async with asyncio.timeout(120):
                while not (until and heard.endswith(until)) and (data := await reader.read(65536)):
                    heard += data
        writer.close()
        return heard


@asynccontextmanager
async def serve() -> AsyncIterator[Talk]:
    """A server on 127.0.0.1."""
    server = HttpServer(lambda request: talk.handle(request), MAX_BODY)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    talk = Talk(server, listening.sockets[0].getsockname()[1])
    yield talk
    listening.close()
    await server.close(0.1)


#: What aiohttp takes in of a body that nobody reads, with one packet behind its limit.
_UNREAD = 64 * 1024


def held_bytes(server: HttpServer) -> int:
    """Bytes of bodies that wait in all connections."""
    waiting = [one._current_request for one in server.connections if one._current_request is not None]
    return sum(request.content._size for request in waiting)


def post(path: bytes = b"x", body: bytes = b"ok", more: bytes = b"") -> bytes:
    return HEAD % path + b"Content-Length: %d\r\n" % len(body) + more + b"\r\n" + body


async def test_a_request_and_its_answer() -> None:
    async with serve() as talk:
        answer = await talk.say(post(), until=b"got 2")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert talk.seen == [("POST", "/x", b"ok")]


async def test_a_request_that_comes_early_waits() -> None:
    async with serve() as talk:
        saying = asyncio.create_task(talk.say(post(b"wait"), post(b"y", b"early"), until=b"got 5"))
        while not talk.headers:  # noqa: ASYNC110  (the server is in this process)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not talk.seen
        talk.go_on.set()
        assert (await saying).count(b"HTTP/1.1 200 ") == 2
        assert talk.seen == [("POST", "/wait", b"ok"), ("POST", "/y", b"early")]


async def test_a_request_byte_by_byte() -> None:
    async with serve() as talk:
        request = HEAD % b"slow" + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Api-Key: trailer\r\n\r\n"
        parts = [request[n : n + 1] for n in range(len(request))]
        assert (await talk.say(*parts, until=b"got 2", pause_s=0)).startswith(b"HTTP/1.1 200")
        assert talk.seen == [("POST", "/slow", b"ok")]
        assert "x-api-key" not in talk.headers[0]


async def test_a_body_is_asked_for_where_the_client_wants_that() -> None:
    async with serve() as talk:
        head, body = HEAD % b"x" + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n", b"ok"
        answer = await talk.say(head, body, until=b"got 2")
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


LENGTH = b"Content-Length: 2\r\n\r\nok"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
#: Shapes by which other servers were made to see another request than the one before them. Source: the first point of
#: what is known to hold, and RFC 9112, sections 2.2, 5.1, 5.2, 6.1 to 6.3 and 7.1.
MALFORMED = [
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    *[b"POST /x HTTP/%b\r\nHost: localhost\r\n" % version + LENGTH for version in (b"1.0", b"1.2", b"2.0")],
    *[b"%b HTTP/1.1\r\nHost: localhost\r\n" % line + LENGTH for line in (b"post /x", b"PO\x01ST /x", b"POST /x y")],
    b"POST /x HTTP/1.1\nHost: localhost\nContent-Length: 2\n\nok",
    b"POST /x HTTP/1.1\r\n" + LENGTH,
    HEAD % b"x" + b"Host: another\r\n" + LENGTH,
    HEAD % b"x" + b"Connection: upgrade\r\nUpgrade: websocket\r\n" + LENGTH,
    HEAD % b"x" + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" + LENGTH,
    HEAD % b"x" + b"Content-Length: 2\r\n" + LENGTH,
    HEAD % b"x" + b"Content-Length: 3\r\n" + LENGTH,
    HEAD % b"x" + CHUNKED + LENGTH,
    HEAD % b"x" + b"Content-Length: 2\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    *[
        HEAD % b"x" + b"Content-Length: %b\r\n\r\nok" % length
        for length in (b"2, 2", b"+2", b"-2", b"0x2", b"2 2", b"1_0", b"9" * 23, b"")
    ],
    *[
        HEAD % b"x" + b"Transfer-Encoding%b\r\n\r\n0\r\n\r\n" % coding
        for coding in (
            *(b": identity", b": chunked, identity", b": xchunked", b":\x0bchunked", b" : chunked"),
            *(b": chunked\r\nTransfer-Encoding: identity", b": chunked\r\nTransfer-Encoding: chunked"),
        )
    ],
    *[
        HEAD % b"x" + CHUNKED + b"\r\n" + chunk + b"\r\n0\r\n\r\n"
        for chunk in (
            b"f" * 17 + b"\r\nok",
            b"-2\r\nok",
            b"0x2\r\nok",
            b"2\r\nokay",
            b"2\nok",
            b"2;a\nb\r\nok",
            b"\r\nok",
        )
    ],
    *[
        HEAD % b"x" + line + b"\r\n" + LENGTH
        for line in (b"A b: c", b"Abc", b"A: b\r\n c", b"A: b\rC: d", b"A: b\0c", b"A: b\x01c", b"A\0: b")
    ],
]


@pytest.mark.parametrize("request_", MALFORMED)
async def test_what_is_no_request_or_two_is_refused_and_nothing_is_served(request_: bytes) -> None:
    async with serve() as talk:
        answer = await talk.say(request_)
        assert b" 400 Bad Request" in answer[:30]
        assert not talk.seen
        # As the Messages API says it, and nothing of the request is in it.
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/json" in head
        error = {"type": "invalid_request_error", "message": "it is no request of HTTP/1.1"}
        assert json.loads(body) == {"type": "error", "error": error}


async def test_a_head_without_end_is_refused() -> None:
    async with serve() as talk:
        assert b" 400 Bad Request" in (await talk.say(HEAD % b"x" + b"X: " + b"x" * 10_000))[:30]
        assert not talk.seen


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused_and_not_held(chunked: bool) -> None:
    async with serve() as talk:
        body = b"x" * (2 * MAX_BODY)
        request = post(body=body)
        if chunked:
            request = HEAD % b"x" + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
        answer = await talk.say(request, until=b"larger than %d bytes" % MAX_BODY)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert not talk.seen


async def test_a_trailer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_BODY_S", 0.2)
    async with serve() as talk:
        head = HEAD % b"x" + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: "
        assert b" 200 " not in await talk.say(head, b"x" * (3 * MAX_BODY), until=b"not come to its end")
        assert not talk.seen
        assert talk.server.room.free == 2 * MAX_BODY


async def test_a_body_in_tiny_chunks_takes_no_more_memory_than_its_bytes() -> None:
    async with serve() as talk:
        chunks = b"2\r\nxx\r\n" * 100_000
        tracemalloc.start()
        try:
            head = HEAD % b"x" + b"Transfer-Encoding: chunked\r\n\r\n"
            answer = await talk.say(head, chunks, b"0\r\n\r\n", until=b"got 200000")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert answer.startswith(b"HTTP/1.1 200 ")
        # The client's own buffer is 0.7 MB; an object for each chunk would be 4 MB.
        assert peak < 3_000_000


async def test_a_body_that_nobody_wants_yet_is_not_taken_in() -> None:
    async with serve() as talk:
        saying = asyncio.create_task(talk.say(post(b"wait", b"x" * MAX_BODY), until=b"got %d" % MAX_BODY))
        while not talk.headers:  # noqa: ASYNC110  (the server is in this process)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert held_bytes(talk.server) <= _UNREAD
        talk.go_on.set()
        assert (await saying).startswith(b"HTTP/1.1 200")


async def test_a_handler_that_fails_is_a_500_and_the_server_lives() -> None:
    async with serve() as talk:
        assert (await talk.say(post(b"broken"))).startswith(b"HTTP/1.1 500 ")
        assert (await talk.say(post(), until=b"got 2")).startswith(b"HTTP/1.1 200")


async def test_who_leaves_cancels_the_handler() -> None:
    async with serve() as talk:
        _, writer = await asyncio.open_connection("127.0.0.1", talk.port)
        writer.write(post(b"wait"))
        while not talk.headers:  # noqa: ASYNC110  (the server is in this process)
            await asyncio.sleep(0.01)
        writer.close()
        await asyncio.wait_for(talk.left.wait(), 120)


@pytest.mark.parametrize("patience_s", [0.0, 0.05])
async def test_closing_cuts_what_takes_too_long(patience_s: float) -> None:
    async with serve() as talk:
        saying = asyncio.create_task(talk.say(post(b"wait")))
        while not talk.headers:  # noqa: ASYNC110  (the server is in this process)
            await asyncio.sleep(0.01)
        await talk.server.close(patience_s)
        assert await saying == b""
        assert talk.left.is_set()


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"POST /x"],
        [b"POST /x HTTP/1.1\r\n"],
        [HEAD % b"x" + b"Content-Length: 2\r\n"],
        [post(), b"POST /"],
        [b"POST /x", *[b"X" for _ in range(9)]],
    ],
)
async def test_a_connection_on_which_nothing_is_asked_is_closed(
    monkeypatch: pytest.MonkeyPatch, parts: list[bytes]
) -> None:
    """Half a head is nothing, and a byte now and then makes it no more."""
    monkeypatch.setattr(http_server, "_IDLE_S", 0.2)
    monkeypatch.setattr(http_server, "_SWEEP_S", 0.05)
    async with serve() as talk:
        await talk.say(*parts, pause_s=0.05)
        assert len(talk.headers) == (parts[0] == post())


@pytest.mark.parametrize("chunked", [False, True])
async def test_half_a_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    monkeypatch.setattr(http_server, "_BODY_S", 0.2)
    async with serve() as talk:
        more = b"Transfer-Encoding: chunked\r\n\r\n5\r\nab" if chunked else b"Content-Length: %d\r\n\r\nab" % MAX_BODY
        assert (await talk.say(HEAD % b"x" + more, until=b"not come to its end")).startswith(b"HTTP/1.1 408 ")
        assert talk.server.room.free == 2 * MAX_BODY


async def test_time_that_the_answer_takes_is_not_the_client_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_BODY_S", "_IDLE_S", "_SWEEP_S"):
        monkeypatch.setattr(http_server, name, 0.2)
    async with serve() as talk:
        saying = asyncio.create_task(talk.say(post(b"hold", b"x" * MAX_BODY), until=b"got %d" % MAX_BODY))
        await asyncio.sleep(0.8)
        talk.go_on.set()
        assert (await saying).startswith(b"HTTP/1.1 200")


async def test_large_bodies_share_their_room_and_small_ones_need_none() -> None:
    async with serve() as talk:
        large = post(b"hold", b"x" * MAX_BODY)
        saying = [asyncio.create_task(talk.say(large, until=b"got %d" % MAX_BODY)) for _ in range(5)]
        async with asyncio.timeout(120):
            while len(talk.seen) < 2:  # noqa: ASYNC110  (the server is in this process)
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert len(talk.seen) == 2
        assert talk.server.room.free == 0
        assert held_bytes(talk.server) <= 3 * _UNREAD
        assert (await talk.say(post(b"y", b"small"), until=b"got 5")).startswith(b"HTTP/1.1 200")
        talk.go_on.set()
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in await asyncio.gather(*saying))
        assert talk.server.room.free == 2 * MAX_BODY


async def test_who_leaves_while_it_waits_or_holds_leaves_its_room_to_others() -> None:
    async with serve() as talk:
        large = post(b"hold", b"x" * MAX_BODY)
        saying = [asyncio.create_task(talk.say(large, until=b"got %d" % MAX_BODY)) for _ in range(5)]
        async with asyncio.timeout(120):
            while len(talk.seen) < 2:  # noqa: ASYNC110  (the server is in this process)
                await asyncio.sleep(0.01)
        for one in saying:
            one.cancel()
        await asyncio.wait(saying)
        for connection in set(talk.server.connections):
            connection.force_close()
        await asyncio.sleep(0.1)
        assert talk.server.room.free == 2 * MAX_BODY


async def test_room_goes_to_who_came_first() -> None:
    room, got = BodyRoom(10), list[int]()

    async def take(size: int) -> None:
        await room.take(size)
        got.append(size)

    await take(8)
    waiting = [asyncio.create_task(take(size)) for size in (9, 1, 2)]
    await asyncio.sleep(0)
    assert got == [8]
    waiting[0].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert got == [8, 1]
    room.give(8)
    await asyncio.gather(*waiting[1:])
    assert (got, room.free) == ([8, 1, 2], 7)


async def test_room_that_was_given_to_one_who_leaves_is_another_s() -> None:
    room = BodyRoom(10)
    await room.take(10)
    first, second = asyncio.create_task(room.take(10)), asyncio.create_task(room.take(10))
    await asyncio.sleep(0)
    room.give(10)
    first.cancel()
    await second
    assert room.free == 0
