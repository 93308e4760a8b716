"""HTTP/1.1 for the meter's own door: as little as it needs, since most of what a request costs would be spent here.

httptools (llhttp) parses. One request on a connection at a time; what a client sends ahead waits. A body is read when
its handler asks for it and, where it is large, once all that are held leave room for it. A client that falls silent in
the middle of a request, or between two, is not waited for without end. All belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import cast

import httptools

from farmhand.meter.body_room import BodyRoom

_MAX_HEAD = 64 * 1024
#: Bytes that are read at once, and so the most that waits for a handler; a user has many connections.
_READ = 32 * 1024
#: How long what is still sent after a refusal is read and dropped: a closed socket would take the answer with it.
_LINGER_S = 10.0
#: How long a client may take from the first byte of a head to its end, for a body, and between two requests.
_HEAD_S = 30.0
_BODY_S = 60.0
_IDLE_S = 600.0
#: A body up to this takes none of the room that large ones share: they cannot keep an ordinary task waiting.
_SMALL_BODY = 512 * 1024
log = logging.getLogger("jada-agent")


class TooLarge(Exception):
    """The body is larger than the server takes."""


class TooSlow(Exception):
    """The body did not come within its time."""


class ServerConnection(asyncio.BufferedProtocol, asyncio.Protocol):
    """A client's connection and the request on it: `method`, `target`, `headers` (names in lower case).

    A handler reads `body`, then either answers with `reply`, or with `start`, any number of `write`, and `end`. It says
    with `release` that it needs the body no more.
    """

    def __init__(self, server: HttpServer) -> None:
        self.method = self.target = ""
        self.headers: dict[str, str] = {}
        self.started = False
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed: asyncio.Future[None] | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._ahead = bytearray()
        self._reading_paused = self._writing_paused = self._dropping = False
        self._alarm: asyncio.TimerHandle | None = None
        self._held = 0
        self._fresh()

    def _fresh(self) -> None:
        self._url = self._head_out = b""
        self._incoming: dict[str, str] = {}
        # No list of the pieces: a client chooses how small they are, and each would be an object of its own.
        self._body = bytearray()
        self._body_bytes = self._head_bytes = self._wire_bytes = 0
        self._head = self._whole = self._keeps = self._wanted = self._over = False
        self.started = False

    # --- for the handler ------------------------------------------------------------------------------------------

    async def body(self) -> bytes:
        """The whole body. TooLarge where it is larger than `max_body`, TooSlow where it does not come; then nothing
        more is read of it.
        """
        # One that does not say how large it is may be as large as any.
        size = int(self.headers.get("content-length", self._server.max_body))
        if size > self._server.max_body:
            raise TooLarge
        if size > _SMALL_BODY and not (self._whole and self._body_bytes <= _SMALL_BODY):
            await self._server.room.take(size)
            self._held = size
        self._wanted = True
        if not self._whole:
            await self._rest()
        if self._too_large:
            raise TooLarge
        body, self._body = bytes(self._body), bytearray()
        if self._held:
            self._server.room.give(self._held - len(body))
            self._held = len(body)
        return body

    def release(self) -> None:
        """The body is not held any more; the second time nothing happens."""
        held, self._held = self._held, 0
        self._server.room.give(held)

    def reply(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """A whole answer."""
        self._begin(status, {**headers, "content-length": str(len(body))})
        self._write(b"" if self.method == "HEAD" else body)
        self._over = True

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of an answer in pieces; it goes out with the first of them."""
        self._begin(status, {**headers, "transfer-encoding": "chunked"})

    async def write(self, piece: bytes) -> None:
        """A piece; returns when the client has taken enough of what went before."""
        self._write(b"%x\r\n%b\r\n" % (len(piece), piece))
        while self._writing_paused:
            await self._change()

    def end(self, piece: bytes = b"") -> None:
        """The last piece; the second time nothing happens."""
        if not self._over:
            self._over = True
            self._write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(piece), piece) if piece else b"0\r\n\r\n")

    def abort(self) -> None:
        """Cut the connection: so a client sees that an answer is not whole."""
        if self._transport is not None:
            self._transport.abort()

    # --- within ---------------------------------------------------------------------------------------------------

    @property
    def _too_large(self) -> bool:
        """Whether the body is, or what carries it: a tiny chunk takes more than it brings, a trailer brings nothing."""
        most = self._server.max_body
        return self._body_bytes > most or self._wire_bytes > 2 * most + _MAX_HEAD

    async def _rest(self) -> None:
        """Wait until the body is whole, or too large. TooSlow."""
        if self.headers.get("expect", "").lower() == "100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(_BODY_S):
                while not self._whole and not self._too_large:
                    self._resume()
                    await self._change()
        except TimeoutError:
            self._body.clear()
            raise TooSlow from None

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.started = True
        # A request that was not read to its end leaves nothing that the next one could be told from.
        self._keeps = self._keeps and self._whole
        phrase = HTTPStatus(status).phrase if status in _STATUSES else ""
        lines = [f"HTTP/1.1 {status} {phrase}", *[f"{name}: {value}" for name, value in headers.items()]]
        if not self._keeps:
            lines.append("connection: close")
        self._head_out = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")

    def _write(self, data: bytes) -> None:
        data, self._head_out = self._head_out + data, b""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def _change(self) -> None:
        self._changed = self._loop.create_future()
        try:
            await self._changed
        finally:
            self._changed = None

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _pause(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()

    def _wait(self, seconds: float | None) -> None:
        """Wait so long for what comes next, and no longer; None: what comes next is ours."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if seconds is None else self._loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self._head_bytes:
            self._refuse(408)
        elif self._transport is not None:
            self._transport.close()

    async def _handle(self) -> None:
        try:
            await self._server.handler(self)
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception:
            log.exception("the meter failed to answer %s", self.method)
            if self.started:
                self.abort()
            else:
                self._keeps = False
                self.reply(500, {})
        finally:
            self.release()
        self._task = None
        if not self._over:
            self.abort()
        elif not self._keeps:
            self._linger()
        else:
            self._fresh()
            self._resume()
            self._wait(_IDLE_S)
            if self._ahead:
                data, self._ahead = bytes(self._ahead), bytearray()
                self.data_received(data)

    def _linger(self) -> None:
        self._dropping = True
        self._wait(None)
        self._ahead.clear()
        self._body.clear()
        if self._transport is None or self._transport.is_closing():
            return
        if self._whole:
            self._transport.close()
            return
        self._resume()
        self._transport.write_eof()
        self._loop.call_later(_LINGER_S, self._transport.abort)

    def _refuse(self, status: int) -> None:
        """What came is no request. One whose handler waits for the rest of it is cut."""
        self._keeps = False
        if self._task is not None:
            self.abort()
            return
        self.reply(status, {})
        self._linger()

    # --- what the transport calls; see asyncio.Protocol -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        self._wait(_IDLE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`; a client that leaves ends its call."""
        self._server.connections.discard(self)
        self._wait(None)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writing_paused = False
        self._wake()

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`; what is read is taken out before anything else is."""
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        self.data_received(bytes(self._server.buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._dropping:
            return
        if self._whole:
            self._ahead += data
            if len(self._ahead) > _READ:
                self._pause()
            return
        self._wire_bytes += len(data)
        first = not self._head_bytes
        if not self._head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400)
        else:
            if not self._head and self._head_bytes > _MAX_HEAD:
                self._refuse(431)
            elif not self._head and first:
                self._wait(_HEAD_S)
        if self._head and self._task is None and not self._dropping:
            self._task = self._loop.create_task(self._handle())
        elif self._wanted:
            self._wake()
        if self._head and not self._whole and not self._wanted and not self._dropping:
            self._pause()

    # --- what the parser calls; see httptools ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """See httptools; a second request in the bytes of the first one is not served."""
        if self._head:
            raise ValueError("a request ahead of its turn")

    def on_url(self, url: bytes) -> None:
        """See httptools."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools; trailers say nothing here."""
        if not self._head:
            self._incoming[name.decode("latin-1").lower()] = value.decode("utf-8", "surrogateescape")

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self._parser.get_http_version() != "1.1":
            raise ValueError("an answer in pieces needs chunks, which HTTP/1.0 does not have")
        self._head = True
        self._wait(None)
        self.method = self._parser.get_method().decode("latin-1")
        self.target = self._url.decode("utf-8", "surrogateescape")
        self.headers = self._incoming
        self._keeps = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """See httptools; a body that is too large is not kept."""
        self._body_bytes += len(body)
        if self._body_bytes <= self._server.max_body:
            self._body += body

    def on_message_complete(self) -> None:
        """See httptools."""
        self._whole = True


_STATUSES = frozenset(HTTPStatus)


class HttpServer:
    """Gives each connection its protocol (call it), and each request to `handler`; bodies up to `max_body` bytes.

    On the wire a body may be twice as large. Large bodies share room for two of the largest.
    """

    def __init__(self, handler: Callable[[ServerConnection], Awaitable[None]], max_body: int) -> None:
        self.handler = handler
        self.max_body = max_body
        self.room = BodyRoom(2 * max_body)
        self.buffer = memoryview(bytearray(_READ))
        self.connections: set[ServerConnection] = set()

    def __call__(self) -> ServerConnection:
        """The protocol of a new connection."""
        return ServerConnection(self)

    async def close(self, patience_s: float) -> None:
        """Give what is under way `patience_s`, then cut it."""
        tasks = {one._task for one in self.connections if one._task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
        for connection in set(self.connections):
            connection.abort()
