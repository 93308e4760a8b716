"""The meter's HTTP side, for clients that cannot call `Meter.send`: the sandboxed CLI, an SDK.

It speaks the Messages API's own dialect, errors included, and knows two paths. The claude CLI asks `HEAD /` first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import hdrs, web

from farmhand.meter.grants import Grant
from farmhand.meter.meter import COUNT_TOKENS, Exchange, Meter
from farmhand.meter.problems import ApiError

#: The provider's own limit on one request. Source: its error reference (413 request_too_large above 32 MB).
MAX_BODY = 32 * 1024 * 1024
_METER: web.AppKey[Meter] = web.AppKey("meter", Meter)
_PATHS = ("/v1/messages", COUNT_TOKENS)
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


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse other hosts before anything else, and answer every failure in the API's own words."""
    host = request.host.rsplit(":", 1)[0]
    if not request.raw_path.startswith("/") or host not in _HOSTS:
        return _error(421, "the meter serves the Messages API only")
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(error.status, f"the meter does not serve {request.method} {request.path}: {error.reason}")


def _grant(request: web.Request) -> Grant | None:
    bearer = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ")
    return request.app[_METER].grants.find(request.headers.get("x-api-key", bearer))


async def _hello(_request: web.Request) -> web.Response:
    return web.Response()


async def _messages(request: web.Request) -> web.StreamResponse:
    grant = _grant(request)
    if grant is None:
        return _error(401, "unknown or used task token")
    async with grant.turns:
        # The task may have ended meanwhile.
        return await _pass(request, grant) if _grant(request) is grant else _error(401, "used task token")


async def _pass(request: web.Request, grant: Grant) -> web.StreamResponse:
    body = await request.read()
    answer: web.StreamResponse | None = None
    try:
        async with request.app[_METER].send(grant, str(request.rel_url), body, request.headers) as exchange:
            headers = {
                name: value
                for name, value in exchange.headers.items()
                if (lower := name.lower()) in _RETURNED or lower.startswith("anthropic-")
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


def create_app(meter: Meter) -> web.Application:
    """The application that serves `meter`; with `handler_cancellation=True` a client that leaves ends its call."""
    app = web.Application(middlewares=[_guard], client_max_size=MAX_BODY)
    app[_METER] = meter
    app.router.add_route("HEAD", "/", _hello)
    for path in _PATHS:
        app.router.add_post(path, _messages)
    return app
