"""Checks on every request: the caller's permission and the protocol version. Errors are returned as JSON."""

from __future__ import annotations

import grp
import logging
import os
import pwd
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from farmhand import __version__
from farmhand.agent.scheduler import Draining
from farmhand.agent.store.commands import IdConflict
from farmhand.agent.store.damage import LedgerStuck
from farmhand.core.errors import FarmhandError, Refused, UsageError, WireMismatch
from farmhand.core.files import peer
from farmhand.wire.schema import AGENT_HEADER, WIRE, WIRE_HEADER

log = logging.getLogger("jada-agent")
MAX_BODY = 64 * 1024 * 1024
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class NotThere(UsageError):
    """The ledger has no such task or batch: `no_such_task`, `no_such_batch`."""

    code = "no_such_task"


class Pruned(UsageError):
    """The task has run, and retention has deleted its content."""

    code = "pruned"


_STATUS_OF: tuple[tuple[type[FarmhandError], int], ...] = (
    (IdConflict, 409),
    (Draining, 503),
    (LedgerStuck, 507),
    (WireMismatch, 426),
    (Refused, 403),
    (NotThere, 404),
    (Pruned, 410),
    (UsageError, 400),
    (FarmhandError, 500),
)


def as_json(value: Any) -> bytes:
    """Encode `value` as JSON, with money as numbers."""
    return _ENCODER.encode(value)


def answer(value: Any, status: int = 200) -> web.Response:
    """Return a JSON response."""
    return web.Response(status=status, body=as_json(value), content_type="application/json")


def answer_lines(values: Iterable[Any]) -> web.Response:
    """Return an NDJSON response with one line per value."""
    return web.Response(body=_ENCODER.encode_lines(values), content_type="application/x-ndjson")


def error_answer(error: FarmhandError, status: int | None = None) -> web.Response:
    """Return the JSON response for `error`."""
    if error.code == "too_large":
        status = 413
    elif status is None:
        status = next(status for kind, status in _STATUS_OF if isinstance(error, kind))
    return answer({"error": error.as_dict()}, status)


def peer_uid_allowed(uid: int, gid: int, groups: Iterable[str]) -> bool:
    """Return whether `uid` may use the agent: root, the agent's own user, and members of `groups`."""
    if uid in {0, os.getuid()}:
        return True
    try:
        member_of = set(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        member_of = {gid}
    for name in groups:
        with suppress(KeyError):
            if grp.getgrnam(name).gr_gid in member_of:
                return True
    return False


def _check_peer(request: web.Request, groups: Iterable[str]) -> None:
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    if connection is None:
        raise Refused("the caller has gone", code="stranger")
    _, uid, gid = peer(connection)
    if not peer_uid_allowed(uid, gid, groups):
        raise Refused(f"uid {uid} may not use this agent", code="stranger", hint="allowed: root and the group farmhand")


def _check_wire(request: web.Request) -> None:
    said = request.headers.get(WIRE_HEADER, "")
    if said == str(WIRE) or request.path == "/metrics":
        return
    newer = said.isdigit() and int(said) > WIRE
    raise WireMismatch(
        f"the client speaks wire {said or '(none)'!s:.20}, this agent ({__version__}) speaks {WIRE}",
        code="agent_too_old" if newer else "client_too_old",
        hint="upgrade the agent: run site.yml" if newer else "upgrade farmhand on the workstation",
    )


def middleware(groups: Iterable[str]) -> Any:
    """Return the middleware that checks the caller, then the protocol version, and turns errors into JSON responses.

    Members of `groups` may call.
    """

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            _check_peer(request, groups)
            _check_wire(request)
            return await handler(request)
        except FarmhandError as error:
            return error_answer(error)
        except web.HTTPRequestEntityTooLarge:
            return error_answer(UsageError(f"the request is larger than {MAX_BODY} bytes", code="too_large"))
        except web.HTTPException as error:
            what = f"{request.method} {request.path[:200]}: {error.reason}"
            return error_answer(UsageError(what, code="no_such_route"), error.status)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            log.exception("%s %.200s: %s", request.method, request.raw_path, type(error).__name__)
            return error_answer(
                FarmhandError(f"the agent failed: {type(error).__name__}", code="agent_error", hint="see its journal")
            )

    return guard


async def sign(_request: web.Request, response: web.StreamResponse) -> None:
    """Add the agent's version and the protocol version to every response."""
    response.headers[WIRE_HEADER] = str(WIRE)
    response.headers[AGENT_HEADER] = __version__
