"""The meter's HTTP/1.1 server, for clients that cannot call `Meter.send`: the sandboxed CLI, an SDK.

A sandboxed task is such a client and is not trusted. Heads, bodies and idle connections have size and time limits, and
large bodies share a memory limit. ADR 0006 explains the choice of aiohttp's low-level server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.web_protocol import RequestHandler

from farmhand.meter.errors import STATUS_CODE, ApiError
from farmhand.meter.exchange import Exchange
from farmhand.meter.meter import COUNT_TOKENS, Meter

#: Half of the provider's limit (32 MB): a long conversation with a few pictures has some MB. An agent has 512 MB for
#: everything, and a body takes up to six times its size while it is checked, one at a time.
MAX_BODY = 16 * 1024 * 1024
#: A body up to this size bypasses the shared limit, so that large ones cannot delay an ordinary task.
_SMALL_BODY = 512 * 1024
#: Seconds for a body, and for a connection without an open request; half a head is not a request.
_BODY_S = 60.0
_IDLE_S = 60.0
#: Seconds between checks for idle connections.
_SWEEP_S = 15.0
_HELD = web.RequestKey("held", int)
_PATHS = frozenset({"/v1/messages", COUNT_TOKENS})
#: A client reaches the meter through a relay on its own loopback interface, under these names only.
_HOSTS = frozenset({"127.0.0.1", "localhost", "meter"})
#: The types of our own refusals, as the API names them.
_ERROR_TYPES = STATUS_CODE | dict.fromkeys((400, 405, 408, 421), "invalid_request_error")
#: Headers of the API's answer that a task needs. The others reveal whose account pays and how close its limits are.
_RETURNED = frozenset({"content-type", "request-id", "retry-after"})
log = logging.getLogger("jada-agent")


class BodyRoom:
    """A number of bytes that may be held at once. Waiters are served in order."""

    def __init__(self, size: int) -> None:
        self.free = size
        self._turn = asyncio.Lock()
        self._given = asyncio.Event()

    async def take(self, size: int) -> None:
        """Wait until `size` bytes are free, then hold them. `size` must not exceed the total."""
        async with self._turn:
            while size > self.free:
                self._given.clear()
                await self._given.wait()
            self.free -= size

    def give(self, size: int) -> None:
        """Release `size` bytes."""
        self.free += size
        self._given.set()


class RefusingHandler(RequestHandler):
    """aiohttp's handler of a connection; its own refusals, of what is no request, are answers of `refuse(status)`.

    aiohttp's text would quote the request, which may hold a key.
    """

    __slots__ = ("_refuse",)

    def __init__(self, server: web.Server, refuse: Callable[[int], web.Response]) -> None:
        super().__init__(server, loop=server._loop, **server._kwargs)
        self._refuse = refuse

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Implement `RequestHandler`: log it, answer it, close the connection."""
        answer = self._refuse(super().handle_error(request, status, exc, message).status)
        answer.force_close()
        return answer


class HttpServer(web.Server):
    """A server that passes each request to `handler`, which reads bodies of up to `max_body` bytes with `read`.

    Large bodies share room for two of the largest size. A client that disconnects cancels its handler. Up to
    `read_size` bytes are read at once, and buffered for the reader.
    """

    #: Where an unexpected error goes, with its traceback.
    logger = log
    #: A sandboxed user has many connections.
    read_size = 32 * 1024

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], max_body: int) -> None:
        super().__init__(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_IDLE_S,
            read_bufsize=self.read_size // 2,
        )
        self.room = BodyRoom(2 * max_body)
        self._handler = handler
        self._max_body = max_body
        self._busy: set[RequestHandler] = set()
        self._idle_since: dict[RequestHandler, float] = {}
        self._clock = asyncio.get_running_loop()
        self._sweeper = self._clock.call_later(_SWEEP_S, self._sweep)

    def __call__(self) -> RequestHandler:
        """Implement `web.Server`: return the handler of a new connection."""
        return RefusingHandler(self, _malformed)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Implement `web.Server`. Limit single reads: asyncio's 256 KB is more than an untrusted client may send."""
        transport.max_size = self.read_size  # type: ignore[attr-defined]
        super().connection_made(handler, transport)

    async def read(self, request: web.BaseRequest) -> bytes:
        """Return the whole body. Raise ApiError if it is too large or does not arrive in time."""
        size, content = request.content_length, request.content
        if size is not None and size > self._max_body:
            raise self._too_large()
        if request.headers.get("expect", "").lower() == "100-continue":
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
                        raise self._too_large()
                    if len(body) > _SMALL_BODY and _HELD not in request:
                        # Waiting for other clients does not count against this one.
                        limit.reschedule(None)
                        await self.room.take(size or self._max_body)
                        request[_HELD] = size or self._max_body
                        limit.reschedule(self._clock.time() + _BODY_S)
        except TimeoutError:
            raise ApiError("invalid_request", "the request did not come to its end", status=408) from None
        if _HELD in request:
            self.room.give(request[_HELD] - len(body))
            request[_HELD] = len(body)
        return bytes(body)

    def _too_large(self) -> ApiError:
        return ApiError("invalid_request", f"the request is larger than {self._max_body} bytes", status=413)

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
                response: web.StreamResponse = _malformed(400)
                response.force_close()
                return response
            return await self._handler(request)
        except (web.RequestPayloadError, ConnectionError):
            raise
        except Exception:
            self.logger.exception("a %s request was not answered", request.method)
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


class MeterServer(HttpServer):
    """The HTTP server of `meter`: two paths of the Messages API, whose format every error has too."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(self._answer, MAX_BODY)
        self._meter = meter

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        # Check the host name first.
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        target, method = request.raw_path, request.method
        if not target.startswith("/") or host not in _HOSTS:
            return _refusal(421, "the meter serves the Messages API only")
        path = target.partition("?")[0]
        if method == "POST" and path in _PATHS:
            return await self._messages(request)
        if method == "HEAD" and path == "/":
            return web.Response()  # the claude CLI asks this first
        status = HTTPStatus.METHOD_NOT_ALLOWED if path in _PATHS or path == "/" else HTTPStatus.NOT_FOUND
        # The path may contain bytes that are not text.
        shown = path.encode("ascii", "backslashreplace").decode()
        return _refusal(status, f"the meter does not serve {method} {shown}: {status.phrase}")

    async def _messages(self, request: web.BaseRequest) -> web.StreamResponse:
        token = request.headers.get("x-api-key")
        if token is None:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
        grant = self._meter.grants.find(token)
        if grant is None:
            return _refusal(401, "unknown or used task token")
        async with grant.semaphore:
            # The task may have ended in the meantime.
            if grant.revoked:
                return _refusal(401, "used task token")
            call = asyncio.current_task()
            assert call is not None  # noqa: S101  (each request has its own)
            grant.calls.add(call)
            answer = web.StreamResponse()
            try:
                headers = {name.lower(): value for name, value in request.headers.items()}
                # No variable here holds the body, so that the meter can free it as soon as it is sent.
                sent = self._meter.send(grant, request.raw_path, await self.read(request), headers)
                async with sent as exchange:
                    self.release(request)
                    return await _pass(exchange, request, answer)
            except ApiError as problem:
                # The grant keeps the problem; without the traceback it does not keep the body in the frames.
                problem.__traceback__ = None
                if not answer.prepared:
                    return _refusal(problem.status or HTTPStatus.BAD_GATEWAY, problem.message)
                # The status is already sent: the only way to signal a cut answer is to cut the connection.
                if request.transport is not None:
                    request.transport.abort()
                return answer
            finally:
                grant.calls.discard(call)


def _refusal(status: int, message: str) -> web.Response:
    kind = _ERROR_TYPES.get(status, "api_error")
    body = msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
    return web.Response(status=status, body=body, content_type="application/json", charset="utf-8")


def _malformed(status: int) -> web.Response:
    return _refusal(status, "it is no request of HTTP/1.1" if status < 500 else "the meter failed to answer")


async def _pass(exchange: Exchange, request: web.BaseRequest, answer: web.StreamResponse) -> web.StreamResponse:
    headers = {name: value for name, value in exchange.headers.items() if name in _RETURNED}
    piece = await exchange.piece()
    if not exchange.streamed:
        # The usage parser holds the whole answer anyway.
        whole = [piece]
        while piece := await exchange.piece():
            whole.append(piece)
        return web.Response(status=exchange.status, headers=headers, body=b"".join(whole))
    answer.set_status(exchange.status)
    answer.headers.update(headers)
    answer.enable_chunked_encoding()
    await answer.prepare(request)
    while piece:
        await answer.write(piece)
        piece = await exchange.piece()
    await answer.write_eof()
    return answer
