"""The meter's HTTP side, for clients that cannot call `Meter.send`: the sandboxed CLI, an SDK.

It speaks the Messages API's own dialect, errors included, and knows two paths. The claude CLI asks `HEAD /` first.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import msgspec

from farmhand.meter.errors import ApiError
from farmhand.meter.exchange import Exchange
from farmhand.meter.grants import Grant
from farmhand.meter.http_server import HttpServer, ServerConnection, TooLarge, TooSlow
from farmhand.meter.meter import COUNT_TOKENS, Meter

#: Half of what the provider takes (32 MB): a long conversation with a few pictures has some MB. An agent has 512 MB for
#: all it does, and a body takes up to six times its size while it is checked, one at a time.
MAX_BODY = 16 * 1024 * 1024
_PATHS = frozenset({"/v1/messages", COUNT_TOKENS})
#: A client reaches the meter through a relay on its own loopback, by these names only.
_HOSTS = frozenset({"127.0.0.1", "localhost", "meter"})
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "request_too_large",
    421: "invalid_request_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
#: Of the API's answer a task needs these. Whose account pays, and how near its limits it is, are none of its business.
_RETURNED = frozenset({"content-type", "request-id", "retry-after"})


def _refuse(connection: ServerConnection, status: int, message: str) -> None:
    kind = _ERROR_TYPES.get(status, "api_error")
    body = msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
    connection.reply(status, {"content-type": "application/json; charset=utf-8"}, body)


class _Handler:
    """Answers requests; every failure in the API's own words."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def __call__(self, connection: ServerConnection) -> None:
        # Another host is refused before anything else.
        host = connection.headers.get("host", "").rsplit(":", 1)[0]
        target, method = connection.target, connection.method
        if not target.startswith("/") or host not in _HOSTS:
            _refuse(connection, 421, "the meter serves the Messages API only")
            return
        path = target.partition("?")[0]
        if method == "POST" and path in _PATHS:
            await self._messages(connection)
        elif method == "HEAD" and path == "/":
            connection.reply(200, {})
        else:
            status = HTTPStatus.METHOD_NOT_ALLOWED if path in _PATHS or path == "/" else HTTPStatus.NOT_FOUND
            # The path may hold bytes that are no text.
            shown = path.encode("ascii", "backslashreplace").decode()
            _refuse(connection, status, f"the meter does not serve {method} {shown}: {status.phrase}")

    def _grant(self, connection: ServerConnection) -> Grant | None:
        headers = connection.headers
        token = headers.get("x-api-key")
        if token is None:
            token = headers.get("authorization", "").removeprefix("Bearer ")
        return self._meter.grants.find(token)

    async def _messages(self, connection: ServerConnection) -> None:
        grant = self._grant(connection)
        if grant is None:
            _refuse(connection, 401, "unknown or used task token")
            return
        async with grant.turns:
            # The task may have ended meanwhile.
            if grant.revoked:
                _refuse(connection, 401, "used task token")
                return
            call = asyncio.current_task()
            assert call is not None  # noqa: S101  (each request has its own)
            grant.calls.add(call)
            try:
                # Nothing here keeps the body, which the meter lets go of as soon as it is sent.
                sent = self._meter.send(grant, connection.target, await connection.body(), connection.headers)
                async with sent as exchange:
                    connection.release()
                    await _pass(exchange, connection)
            except TooLarge:
                _refuse(connection, 413, f"the request is larger than {MAX_BODY} bytes")
            except TooSlow:
                _refuse(connection, 408, "the request did not come to its end")
            except ApiError as problem:
                if connection.started:
                    # The status is out: a cut answer can only be shown by cutting ours.
                    connection.abort()
                else:
                    _refuse(connection, problem.status or HTTPStatus.BAD_GATEWAY, problem.message)
                # The grant keeps the problem, and must not keep the body through the frames that it came through.
                problem.__traceback__ = None
            finally:
                grant.calls.discard(call)


async def _pass(exchange: Exchange, connection: ServerConnection) -> None:
    headers = {name: value for name, value in exchange.headers.items() if name in _RETURNED}
    # Few writes, which are what costs: the head goes with what comes first, the end with what comes last.
    piece = await exchange.piece()
    if not exchange.streamed:
        # The watch holds the whole of it anyway.
        whole = [piece]
        while piece := await exchange.piece():
            whole.append(piece)
        connection.reply(exchange.status, headers, b"".join(whole))
        return
    connection.start(exchange.status, headers)
    while piece:
        if exchange.ended:
            connection.end(piece)
        else:
            await connection.write(piece)
        piece = await exchange.piece()
    connection.end()


def create_server(meter: Meter) -> HttpServer:
    """What serves `meter`: a protocol factory. A client that leaves ends its call."""
    return HttpServer(_Handler(meter), MAX_BODY)
