"""An HTTP/1.1 client for one origin with a connection pool, limited to the meter's needs, at a third of the time.

httptools (llhttp) parses; this module has the pool, the time limits, and the path from the socket to the reader. Each
connection has one request at a time. No redirects, proxies, cookies or compression. All belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import cast
from urllib.parse import urlsplit

import httptools

#: A connection that was idle for longer is not reused: its server may be about to close it. Seconds.
_KEEP_S = 15.0
_CONNECT_S = 30.0
#: Seconds before the second address of a host is tried. Source: RFC 8305, section 5.
_NEXT_ADDRESS_S = 0.25
_MAX_HEAD = 64 * 1024
#: Unread bytes of an answer at which reading from the socket pauses.
_MAX_WAITING = 256 * 1024
#: Bytes to read at once. asyncio's default allocates 256 KB for each packet.
_READ = 64 * 1024
#: Larger bodies are sent in parts of this size, so that the transport never holds a copy of the whole.
_PART = 256 * 1024


@lru_cache(maxsize=256)
def _lower(name: bytes) -> str:
    """Return a header's name in lower case. Cached, since the API's answers repeat the same names."""
    return name.decode("latin-1").lower()


class UpstreamError(Exception):
    """There is no answer, or only a part of one; the text is the reason."""


class Unreachable(UpstreamError):
    """There is no connection: nothing was sent."""


class Cut(UpstreamError):
    """The connection ended, or its data is not HTTP."""


class UpstreamConnection(asyncio.Protocol):
    """One connection and its current answer: `status` and `headers` (names in lower case) are set when `send` returns.

    `close` returns the connection to the pool if the whole answer was read, otherwise it closes it.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._waiting_bytes = self._head_bytes = 0
        self._paused = self._full = False
        self._head = self._whole = True
        self._framed = self._keeps = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._heard = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        """Return whether another request can be sent on it."""
        return self._error is None and not self._transport.is_closing()

    @property
    def read_out(self) -> bool:
        """Return whether the whole answer has arrived and was read."""
        return self._whole and not self._pieces

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Send a request. Return when the answer's head has arrived, possibly before the whole body was sent.

        Raise Cut, or TimeoutError after `idle_s` of silence. Raise ValueError, with nothing sent, if a header or the
        path has a line break.
        """
        lines = [f"{method} {path} HTTP/1.1", self._upstream.host]
        if body or method != "GET":
            lines.append(f"content-length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(lines)
        if head.count("\r") != len(lines) - 1 or head.count("\n") != len(lines) - 1 or "\0" in head:
            self.abort()
            raise ValueError("a request header with a line break")
        self.status, self.headers, self._head_bytes = 0, {}, 0
        self._head = self._whole = False
        self._heard = self._loop.time()
        if self._alarm is None:
            self._alarm = self._loop.call_later(self._upstream.idle_s, self._look)
        self._transport.write(f"{head}\r\n\r\n".encode("utf-8", "surrogateescape") + body[:_PART])
        try:
            if len(body) > _PART:
                await self._rest(memoryview(body)[_PART:])
            while not self._head:
                await self._more()
        except BaseException:
            self.abort()
            raise

    async def _rest(self, body: memoryview) -> None:
        """Send the rest of a body as fast as the peer takes it. Stop once the peer has answered."""
        while body and not self._head:
            if self._full:
                await self._more()
            elif self._error is not None:
                raise self._error
            else:
                self._transport.write(body[:_PART])
                body = body[_PART:]
                self._heard = self._loop.time()
        if body:
            self._keeps = False

    async def piece(self) -> bytes:
        """Return the body data since the last call, b"" at its end. Raise the same errors as `send`."""
        while not self._pieces:
            if self._whole:
                return b""
            await self._more()
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._waiting_bytes = 0
        if self._paused:
            self._paused = False
            self._heard = self._loop.time()
            self._transport.resume_reading()
        return piece

    async def read(self, most: int) -> bytes:
        """Return the body, or its first `most` bytes."""
        found = b""
        while len(found) < most and (piece := await self.piece()):
            found += piece
        return found[:most]

    def close(self) -> None:
        """Return the connection to the pool, or close it."""
        if self._whole and self.usable and self._keeps and not self._paused:
            self._pieces.clear()
            self._waiting_bytes = 0
            self._upstream.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once, even during a request."""
        self._fail(Cut("closed"))
        self._transport.abort()

    async def _more(self) -> None:
        """Wait for an event on the connection."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._wake()

    def _look(self) -> None:
        """Check for a timeout. One timer serves many requests: it is rescheduled for the time left."""
        self._alarm = None
        if self._whole:
            return
        left = self._upstream.idle_s if self._paused else self._heard + self._upstream.idle_s - self._loop.time()
        if left > 0:
            self._alarm = self._loop.call_later(left, self._look)
        else:
            self._fail(TimeoutError("no byte for too long"))
            self._transport.abort()

    # --- transport callbacks; see asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Implement `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.max_size = _READ  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        """Implement `asyncio.Protocol`."""
        self._whole = self._whole or (self._head and not self._framed and exc is None)
        self._fail(Cut((exc and getattr(exc, "strerror", None)) or "the server hung up"))
        self._upstream.forget(self)

    def pause_writing(self) -> None:
        """Implement `asyncio.Protocol`."""
        self._full = True

    def resume_writing(self) -> None:
        """Implement `asyncio.Protocol`."""
        self._full = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Implement `asyncio.Protocol`."""
        self._heard = self._loop.time()
        if not self._head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if not self._head and self._head_bytes > _MAX_HEAD:
                raise Cut("the head of the answer is too large")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, Cut):
            self._fail(Cut("the answer is no HTTP/1.1"))
            self._transport.abort()
            return
        self._wake()

    # --- parser callbacks; see httptools ------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Implement httptools' callback. An answer without a request is an error."""
        if self._whole:
            raise Cut("an answer without a request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Implement httptools' callback. Trailers are ignored."""
        if not self._head:
            self.headers[_lower(name)] = value.decode("utf-8", "surrogateescape")

    def on_headers_complete(self) -> None:
        """Implement httptools' callback."""
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = {}
            return
        self._head = True
        self._framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        self._keeps = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Implement httptools' callback."""
        self._pieces.append(body)
        self._waiting_bytes += len(body)
        if self._waiting_bytes > _MAX_WAITING and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Implement httptools' callback. An interim answer (100, 103) does not count."""
        if self._head:
            self._whole = True


class Upstream:
    """A pool of connections to the origin of `url`, without a size limit. `idle_s` limits an answer's silence."""

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None, idle_s: float = 120.0) -> None:
        parts = urlsplit(url)
        self.base = parts.path.rstrip("/")
        self.host = f"host: {parts.netloc.rpartition('@')[2]}"
        secure = parts.scheme == "https"
        self._address = (parts.hostname or "", parts.port or (443 if secure else 80))
        self._tls = (tls or ssl.create_default_context()) if secure else None
        self.idle_s = idle_s
        #: The idle connections, the newest last, with the timers that close them.
        self._kept: dict[UpstreamConnection, asyncio.TimerHandle] = {}

    async def connection(self) -> UpstreamConnection:
        """Return the newest pooled connection, or a new one. Raise Unreachable."""
        while self._kept:
            kept, expiry = self._kept.popitem()
            expiry.cancel()
            if kept.usable:
                return kept
            kept.abort()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, made = await asyncio.get_running_loop().create_connection(
                    lambda: UpstreamConnection(self),
                    *self._address,
                    ssl=self._tls,
                    happy_eyeballs_delay=_NEXT_ADDRESS_S,
                )
        except TimeoutError:
            raise Unreachable(f"no connection within {_CONNECT_S:.0f} s") from None
        except (OSError, UnicodeError) as error:
            # asyncio puts the address into the words, and a name that is not known has a number of its own.
            known = isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno
            words = os.strerror(known) if known else getattr(error, "strerror", None)
            raise Unreachable(words or str(error) or type(error).__name__) from None
        return made

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncIterator[UpstreamConnection]:
        """Send a request for `path`, below the path of `url`; yield the connection once the answer's head is in.

        The body is not kept any longer than that. A pooled connection that its server closes before a byte of the
        answer is replaced once, so the request must not do harm if it is sent twice. Leaving the block before the
        answer's end closes the connection. Raise Unreachable, Cut or TimeoutError.
        """
        pooled = bool(self._kept)
        connection = await self.connection()
        try:
            await connection.send(method, self.base + path, headers, body)
        except Cut:
            if not pooled or connection.status:
                raise
            self.close()
            connection = await self.connection()
            await connection.send(method, self.base + path, headers, body)
        del body
        try:
            yield connection
        finally:
            connection.close()

    def keep(self, connection: UpstreamConnection) -> None:
        """Return a connection to the pool."""
        self._kept[connection] = asyncio.get_running_loop().call_later(_KEEP_S, connection.abort)

    def forget(self, connection: UpstreamConnection) -> None:
        """Remove a connection that has ended."""
        if expiry := self._kept.pop(connection, None):
            expiry.cancel()

    def close(self) -> None:
        """Close the pooled connections."""
        while self._kept:
            kept, expiry = self._kept.popitem()
            expiry.cancel()
            kept.abort()
