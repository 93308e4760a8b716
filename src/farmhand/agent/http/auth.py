"""Checks on callers: their number of connections, their permission, the protocol version. Errors are JSON answers."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import pwd
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from farmhand import __version__
from farmhand.core.errors import FarmhandError, Refused, UsageError, WireMismatch
from farmhand.core.files import peer
from farmhand.core.keys import redact
from farmhand.meter.http_server import HttpServer, RefusingHandler
from farmhand.wire.schema import AGENT_HEADER, WIRE, WIRE_HEADER

log = logging.getLogger("jada-agent")
MAX_BODY = 64 * 1024 * 1024
_ENCODER = msgspec.json.Encoder(decimal_format="number")
#: HTTP status by error code; otherwise by the exit status of the error's class, and else 500.
_STATUS_OF_CODE = {
    "no_such_task": 404,
    "no_such_batch": 404,
    "id_conflict": 409,
    "pruned": 410,
    "too_large": 413,
    "agent_too_old": 426,
    "client_too_old": 426,
    "draining": 503,
    "ledger_stuck": 507,
    "ledger_damaged": 507,
}
#: What has figures and nothing that a client has written but names.
_READING = frozenset(("GET", path) for path in ("/metrics", "/v1/status", "/v1/charges"))
_STATUS_OF_EXIT = {UsageError.exit_code: 400, Refused.exit_code: 403}


def as_json(value: Any) -> bytes:
    """Encode `value` as JSON, with money as numbers."""
    return _ENCODER.encode(value)


def answer(value: Any, status: int = 200) -> web.Response:
    """Return a JSON response."""
    return web.Response(status=status, body=as_json(value), content_type="application/json")


def answer_lines(values: Iterable[Any]) -> web.Response:
    """Return an NDJSON response with one line per value."""
    return web.Response(body=_ENCODER.encode_lines(values), content_type="application/x-ndjson")


def _error_answer(error: FarmhandError, status: int = 0) -> web.Response:
    status = status or _STATUS_OF_CODE.get(error.code) or _STATUS_OF_EXIT.get(error.exit_code, 500)
    # A message may quote what was asked, and that may hold a key.
    return answer({"error": {name: redact(text) for name, text in error.as_dict().items()}}, status)


def malformed(status: int) -> web.Response:
    """Return the answer to what is no request, or could not be answered."""
    if status < 500:
        return _error_answer(UsageError("it is no request of HTTP/1.1", code="invalid_request"), status)
    return _error_answer(FarmhandError("the agent failed to answer", hint="see its log", code="agent_error"), status)


def limited(server: web.Server, per_uid: int) -> Callable[[], asyncio.Protocol]:
    """Return a protocol factory in front of `server` that closes connections of one user beyond `per_uid`."""
    owners: dict[asyncio.Protocol, int] = {}

    class LimitedProtocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Hand the connection over to the server, or close it."""
            assert isinstance(transport, asyncio.Transport)  # noqa: S101  (sockets have no other kind)
            uid = peer(transport.get_extra_info("socket")).uid
            for closed in owners.keys() - set(server.connections):
                del owners[closed]
            if list(owners.values()).count(uid) >= per_uid:
                transport.abort()
                return
            handler = server() if isinstance(server, HttpServer) else RefusingHandler(server, malformed)
            owners[handler] = uid
            transport.set_protocol(handler)
            handler.connection_made(transport)

    return LimitedProtocol


def _may_call(uid: int, gid: int, groups: Iterable[str]) -> bool:
    """Return whether `uid` may use the agent: root, the agent's own user, and members of `groups`."""
    if uid in {0, os.getuid()}:
        return True
    member_of = {gid}
    with suppress(KeyError):
        member_of.update(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    for name in groups:
        with suppress(KeyError):
            if grp.getgrnam(name).gr_gid in member_of:
                return True
    return False


def _check(request: web.Request, groups: Collection[str], readers: Collection[str]) -> None:
    """Raise Refused for a stranger, WireMismatch for another protocol version."""
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    if connection is None:
        raise Refused("the caller has gone", code="stranger")
    _, uid, gid = peer(connection)
    reads = readers if (request.method, request.path) in _READING else ()
    if not _may_call(uid, gid, (*groups, *reads)):
        raise Refused(f"uid {uid} may not use this agent", code="stranger", hint="allowed: root and the group farmhand")
    said = request.headers.get(WIRE_HEADER, "")
    if said != str(WIRE) and request.path != "/metrics":
        newer = said.isdigit() and int(said) > WIRE
        raise WireMismatch(
            f"the client speaks wire {said or '(none)'!s:.20}, this agent ({__version__}) speaks {WIRE}",
            code="agent_too_old" if newer else "client_too_old",
            hint="upgrade the agent: run site.yml" if newer else "upgrade farmhand on the workstation",
        )


def middleware(groups: Collection[str], readers: Collection[str] = ()) -> Any:
    """Return the middleware that checks the caller and turns errors into JSON responses.

    The caller is a member of `groups`. Members of `readers` may only read figures.
    """

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            _check(request, groups, readers)
            return await handler(request)
        except FarmhandError as error:
            return _error_answer(error)
        except web.HTTPRequestEntityTooLarge:
            return _error_answer(UsageError(f"the request is larger than {MAX_BODY} bytes", code="too_large"))
        except web.HTTPException as error:
            what = f"{request.method} {request.path[:200]}: {error.reason}"
            return _error_answer(UsageError(what, code="no_such_route"), error.status)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            log.exception("%s %.200s: %s", request.method, request.raw_path, type(error).__name__)
            what = f"the agent failed: {type(error).__name__}"
            return _error_answer(FarmhandError(what, code="agent_error", hint="see its journal"))

    return guard


async def sign(_request: web.Request, response: web.StreamResponse) -> None:
    """Add the agent's version and the protocol version to every response."""
    response.headers[WIRE_HEADER] = str(WIRE)
    response.headers[AGENT_HEADER] = __version__
