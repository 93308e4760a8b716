"""The meter's HTTP server, for clients that cannot call `Meter.send`: the sandboxed CLI, an SDK.

It speaks the Messages API's protocol, errors included, on two paths. The claude CLI first sends `HEAD /`.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import msgspec
from aiohttp import web

from farmhand.meter.errors import ApiError
from farmhand.meter.exchange import Exchange
from farmhand.meter.grants import Grant
from farmhand.meter.http_server import HttpServer, TooLarge, TooSlow, abort
from farmhand.meter.meter import COUNT_TOKENS, Meter

#: Half of the provider's limit (32 MB): a long conversation with a few pictures has some MB. An agent has 512 MB for
#: everything, and a body takes up to six times its size while it is checked, one at a time.
MAX_BODY = 16 * 1024 * 1024
_PATHS = frozenset({"/v1/messages", COUNT_TOKENS})
#: A client reaches the meter through a relay on its own loopback interface, under these names only.
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
#: Headers of the API's answer that a task needs. The others reveal whose account pays and how close its limits are.
_RETURNED = frozenset({"content-type", "request-id", "retry-after"})


def _refusal(status: int, message: str) -> web.Response:
    kind = _ERROR_TYPES.get(status, "api_error")
    body = msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
    return web.Response(status=status, body=body, content_type="application/json", charset="utf-8")


class MeterServer(HttpServer):
    """The HTTP server of `meter`. Every error has the API's own format."""

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
            return web.Response()
        status = HTTPStatus.METHOD_NOT_ALLOWED if path in _PATHS or path == "/" else HTTPStatus.NOT_FOUND
        # The path may contain bytes that are not text.
        shown = path.encode("ascii", "backslashreplace").decode()
        return _refusal(status, f"the meter does not serve {method} {shown}: {status.phrase}")

    def _grant(self, request: web.BaseRequest) -> Grant | None:
        token = request.headers.get("x-api-key")
        if token is None:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self._meter.grants.find(token)

    async def _messages(self, request: web.BaseRequest) -> web.StreamResponse:
        grant = self._grant(request)
        if grant is None:
            return _refusal(401, "unknown or used task token")
        async with grant.turns:
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
            except TooLarge:
                return _refusal(413, f"the request is larger than {MAX_BODY} bytes")
            except TooSlow:
                return _refusal(408, "the request did not come to its end")
            except ApiError as problem:
                # The grant keeps the problem; without the traceback it does not keep the body in the frames.
                problem.__traceback__ = None
                if answer.prepared:
                    # The status is already sent: the only way to signal a cut answer is to cut the connection.
                    abort(request)
                    return answer
                return _refusal(problem.status or HTTPStatus.BAD_GATEWAY, problem.message)
            finally:
                grant.calls.discard(call)


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
