"""The meter's HTTP side, for clients that cannot call `Meter.send`: the sandboxed CLI, an SDK.

It speaks the Messages API's own dialect, errors included, and knows two paths. The claude CLI asks `HEAD /` first.
"""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus

from aiohttp import hdrs, web

from farmhand.meter.grants import Grant
from farmhand.meter.meter import COUNT_TOKENS, Exchange, Meter
from farmhand.meter.problems import ApiError

#: The provider's own limit on one request. Source: its error reference (413 request_too_large above 32 MB).
MAX_BODY = 32 * 1024 * 1024
_PATHS = frozenset({"/v1/messages", COUNT_TOKENS})
#: A client reaches the meter through a relay on its own loopback, by these names only.
_HOSTS = frozenset({"127.0.0.1", "localhost", "meter"})
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    421: "invalid_request_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_RETURNED = ("content-type", "request-id", "retry-after")


def _error(status: int, message: str) -> web.Response:
    kind = _ERROR_TYPES.get(status, "api_error")
    return web.json_response({"type": "error", "error": {"type": kind, "message": message}}, status=status)


class _Door:
    """Answers requests; every failure in the API's own words."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        # Another host is refused before anything else.
        host = request.headers.get(hdrs.HOST, "").rsplit(":", 1)[0]
        target = request.raw_path
        if not target.startswith("/") or host not in _HOSTS:
            return _error(421, "the meter serves the Messages API only")
        method, path = request.method, target.partition("?")[0]
        if method == "POST" and path in _PATHS:
            try:
                return await self._messages(request, target)
            except web.HTTPException as error:
                return _error(error.status, f"the meter does not serve {method} {path}: {error.reason}")
        if method == "HEAD" and path == "/":
            return web.Response()
        status = HTTPStatus.METHOD_NOT_ALLOWED if path in _PATHS or path == "/" else HTTPStatus.NOT_FOUND
        return _error(status, f"the meter does not serve {method} {path}: {status.phrase}")

    def _grant(self, request: web.BaseRequest) -> Grant | None:
        headers = request.headers
        token = headers.get("x-api-key")
        return self._meter.grants.find(
            headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ") if token is None else token
        )

    async def _messages(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        grant = self._grant(request)
        if grant is None:
            return _error(401, "unknown or used task token")
        async with grant.turns:
            # The task may have ended meanwhile.
            if self._grant(request) is not grant:
                return _error(401, "used task token")
            return await _pass(self._meter, request, target, grant)


async def _pass(meter: Meter, request: web.BaseRequest, target: str, grant: Grant) -> web.StreamResponse:
    body = await request.read()
    answer: web.StreamResponse | None = None
    try:
        async with meter.send(grant, target, body, request.headers) as exchange:
            headers = {
                name: value
                for name, value in exchange.headers.items()
                if name in _RETURNED or name.startswith("anthropic-")
            }
            if not exchange.streamed:
                # In one write, which is what costs: the watch holds the whole of it anyway.
                whole = b"".join([piece async for piece in exchange.pieces()])
                return web.Response(status=exchange.status, headers=headers, body=whole)
            answer = web.StreamResponse(status=exchange.status, headers=headers)
            await answer.prepare(request)
            await _stream(answer, exchange)
    except ApiError as problem:
        if answer is not None and answer.prepared:
            # The status is out: a cut answer can only be shown by cutting ours.
            if request.transport is not None:
                request.transport.abort()
            return answer
        return _error(problem.status or HTTPStatus.BAD_GATEWAY, problem.message)
    return answer


async def _stream(answer: web.StreamResponse, exchange: Exchange) -> None:
    """Each piece as it comes; the end goes out with the last one."""
    over = False
    async for piece in exchange.pieces():
        if exchange.ended and not over:
            over = True
            await answer.write_eof(piece)
        elif not over:
            await answer.write(piece)
    await answer.write_eof()


def create_runner(meter: Meter, *, shutdown_timeout: float = 2.0) -> web.ServerRunner:
    """What serves `meter`. A client that leaves ends its call."""
    request = partial(web.BaseRequest, loop=asyncio.get_running_loop(), client_max_size=MAX_BODY)
    server = web.Server(_Door(meter), request_factory=request, handler_cancellation=True, access_log=None)
    return web.ServerRunner(server, shutdown_timeout=shutdown_timeout)
