"""The meter's HTTP/1.1 server: aiohttp's low-level server, with limits on what a client may hold and for how long.

A sandboxed task is such a client and is not trusted. Heads, bodies and idle connections have size and time limits, and
large bodies share a memory limit. ADR 0006 explains the choice of aiohttp.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, web
from aiohttp.web_protocol import RequestHandler

from farmhand.meter.body_room import BodyRoom

#: Seconds for a body, and for a connection without an open request; half a head is not a request.
_BODY_S = 60.0
_IDLE_S = 60.0
#: Seconds between checks for idle connections.
_SWEEP_S = 15.0
#: Bytes to read at once and to buffer for the reader: a user has many connections.
_READ = 32 * 1024
#: A body up to this size bypasses the shared limit, so that large ones cannot delay an ordinary task.
_SMALL_BODY = 512 * 1024
_HELD = web.RequestKey("held", int)
log = logging.getLogger("jada-agent")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class TooLarge(Exception):
    """The body is larger than the server accepts."""


class TooSlow(Exception):
    """The body did not arrive in time."""


class HttpServer(web.Server):
    """A server that passes each request to `handler`, which reads bodies of up to `max_body` bytes with `read`.

    Large bodies share room for two of the largest size. A client that disconnects cancels its handler.
    """

    def __init__(self, handler: Handler, max_body: int) -> None:
        super().__init__(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_IDLE_S,
            read_bufsize=_READ // 2,
        )
        self.room = BodyRoom(2 * max_body)
        self._handler = handler
        self._max_body = max_body
        self._busy: set[RequestHandler] = set()
        self._idle_since: dict[RequestHandler, float] = {}
        self._clock = asyncio.get_running_loop()
        self._sweeper = self._clock.call_later(_SWEEP_S, self._sweep)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Implement `web.Server`. Limit single reads: asyncio's 256 KB is more than an untrusted client may send."""
        transport.max_size = _READ  # type: ignore[attr-defined]
        super().connection_made(handler, transport)

    async def read(self, request: web.BaseRequest) -> bytes:
        """Return the whole body. Raise TooLarge, or TooSlow if it does not arrive in time."""
        size, content = request.content_length, request.content
        if size is not None and size > self._max_body:
            raise TooLarge
        if "expect" in request.headers and request.headers["expect"].lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        if content.is_eof() and content.total_bytes <= _SMALL_BODY:
            return content.read_nowait()  # nearly all bodies: nothing to wait for
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_S) as limit:
                while not content.at_eof():
                    body += await content.readany()
                    if len(body) > self._max_body:
                        raise TooLarge
                    if len(body) > _SMALL_BODY and _HELD not in request:
                        # Waiting for other clients does not count against this one.
                        limit.reschedule(None)
                        await self._hold(request, size or self._max_body)
                        limit.reschedule(self._clock.time() + _BODY_S)
        except TimeoutError:
            raise TooSlow from None
        if _HELD in request:
            self.room.give(request[_HELD] - len(body))
            request[_HELD] = len(body)
        return bytes(body)

    async def _hold(self, request: web.BaseRequest, size: int) -> None:
        await self.room.take(size)
        request[_HELD] = size

    def release(self, request: web.BaseRequest) -> None:
        """Release the room of the request's body. Calling it again does nothing."""
        if _HELD in request:
            self.room.give(request.pop(_HELD))

    async def close(self, patience_s: float) -> None:
        """Give open requests `patience_s` to end, then cut them."""
        self._sweeper.cancel()
        # aiohttp treats 0 as no limit.
        await self.shutdown(max(patience_s, 0.001))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        self._busy.add(protocol)
        try:
            if request.version != HttpVersion11 or "upgrade" in request.headers:
                response: web.StreamResponse = web.Response(status=400)
                response.force_close()
                return response
            return await self._handler(request)
        except (web.RequestPayloadError, ConnectionError):
            raise
        except Exception:
            log.exception("the meter failed to answer %s", request.method)
            raise
        finally:
            self.release(request)
            self._busy.discard(protocol)
            self._idle_since[protocol] = self._clock.time()

    def _sweep(self) -> None:
        """Close connections that have had no request for too long."""
        now = self._clock.time()
        self._idle_since = {one: self._idle_since.get(one, now) for one in self.connections}
        for protocol, since in self._idle_since.items():
            if protocol not in self._busy and now - since >= _IDLE_S:
                protocol.force_close()
        self._sweeper = self._clock.call_later(_SWEEP_S, self._sweep)


def abort(request: web.BaseRequest) -> None:
    """Cut the connection, to signal an incomplete answer to the client."""
    if request.transport is not None:
        request.transport.abort()
