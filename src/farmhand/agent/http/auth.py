"""Checks of every request: the caller's right and the wire's version; errors in the wire's own form."""

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
    """A task or a batch that the ledger does not have: `no_such_task`, `no_such_batch`."""

    code = "no_such_task"


class Pruned(UsageError):
    """A task that has run, whose content retention has taken."""

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
    """JSON with money as numbers."""
    return _ENCODER.encode(value)


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(status=status, body=as_json(value), content_type="application/json")


def answer_lines(values: Iterable[Any]) -> web.Response:
    """An NDJSON answer, one line per value."""
    return web.Response(body=_ENCODER.encode_lines(values), content_type="application/x-ndjson")


def error_answer(error: FarmhandError, status: int | None = None) -> web.Response:
    """The wire's form of `error`."""
    if error.code == "too_large":
        status = 413
    elif status is None:
        status = next(status for kind, status in _STATUS_OF if isinstance(error, kind))
    return answer({"error": error.as_dict()}, status)


def peer_uid_allowed(uid: int, gid: int, groups: Iterable[str]) -> bool:
    """Whether a process of `uid` may speak to the agent: root, the agent's own user, and members of `groups`."""
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
    """Strangers out first, then the wire's version; every failure leaves in the wire's own form.

    `groups` are those whose members may call.
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
    """Say on every answer which agent speaks, and which wire."""
    response.headers[WIRE_HEADER] = str(WIRE)
    response.headers[AGENT_HEADER] = __version__
