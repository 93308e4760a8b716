"""The gateway's HTTP server: the routes as a table, and one function for each endpoint.

Every path is also served below `/c/{class}/`, for clients that cannot send a header. An error has the form of the
dialect that is asked for; what belongs to none has that of Messages.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import unquote

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from farmhand import __version__
from farmhand.core.errors import FarmhandError
from farmhand.gateway import advice, ledger
from farmhand.gateway.answering import Answering
from farmhand.gateway.backends.metered_setup import AllowRequest
from farmhand.gateway.dialects import errors, messages
from farmhand.gateway.guard import Denied, Guard
from farmhand.gateway.labels import headers_of
from farmhand.gateway.turn import BadRequest, CannotCarry, Dialect
from farmhand.meter.errors import ApiError
from farmhand.meter.http_server import HttpServer

#: The provider's own limit.
MAX_BODY = 32 * 1024 * 1024
#: Room for 1,000 streams, and for the command line beside them.
MAX_CONNECTIONS = 1100
CONTROL_HEADER = "X-Farmhand-Control"
#: Decisions that `/farmhand/v1/decisions` shows at once.
_SHOWN = 200
_CLASS_PATH = re.compile(r"/c/([^/]*)(/.*)", re.DOTALL)
_MODEL_PREFIX = "/v1/models/"
#: How Claude Code's picker and the others ask for an alias.
_SPELLINGS = ("claude-farmhand-", "farmhand/")
#: Headers of every answer. A page that got hold of one may do nothing with it.
_ALWAYS = {"server": "farmhand", "cross-origin-resource-policy": "same-origin", "x-content-type-options": "nosniff"}
log = logging.getLogger("farmhand-gateway")


class Asked(NamedTuple):
    """A request for an endpoint: its path and class, its dialect for errors, and what follows a path's prefix."""

    request: web.BaseRequest
    path: str
    work_class: str | None
    dialect: Dialect
    rest: str = ""


class Route(NamedTuple):
    """An endpoint. `public`: answered without a token. `control`: for the command line only."""

    call: Callable[[GatewayServer, Asked], Awaitable[web.StreamResponse]]
    public: bool = False
    control: bool = False


def _dialect_of(path: str) -> Dialect:
    return "chat" if path.startswith("/v1/chat/") else "responses" if path.startswith("/v1/responses") else "messages"


class GatewayServer(HttpServer):
    """Serves `answering` behind `guard`. `reload` reads the settings again, or raises FarmhandError."""

    logger = log
    #: A turn of Claude Code has 49 to 79 KB: it comes in one piece, and nothing waits for the rest.
    read_size = 96 * 1024

    def __init__(self, guard: Guard, answering: Answering, reload: Callable[[], Awaitable[None]]) -> None:
        super().__init__(self._answer, MAX_BODY)
        self._guard = guard
        self._answering = answering
        self._reload = reload
        self._started = time.time()

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Implement `web.Server`. Close what is too much."""
        if len(self.connections) >= MAX_CONNECTIONS:
            transport.abort()
        super().connection_made(handler, transport)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        work_class = None
        if match := _CLASS_PATH.fullmatch(path):
            work_class, path = match.groups()
        rest = ""
        if path.startswith(_MODEL_PREFIX):
            path, rest = _MODEL_PREFIX, unquote(path.removeprefix(_MODEL_PREFIX))
        asked = Asked(request, path, work_class, _dialect_of(path), rest)
        route = ROUTES.get((request.method, path))
        try:
            await self._guard.check(request, public=route is not None and route.public)
            if route is None:
                known = any(path == one for _, one in ROUTES)
                raise Denied(405 if known else 404, "the gateway does not serve this")
            if route.control and request.headers.get(CONTROL_HEADER) != "1":
                raise Denied(403, f"the header {CONTROL_HEADER}: 1 is missing")
            response = await route.call(self, asked)
        except Denied as denied:
            response = self._error(asked, denied.status, str(denied), headers=denied.headers)
            # A body that was not read cannot be told from the next request.
            response.force_close()
        except ApiError as problem:
            response = self._error(asked, problem.status or 400, problem.message)
            response.force_close()
        except CannotCarry as lost:
            response = self._error(asked, 400, str(lost), advice.NOT_CARRIED)
        except BadRequest as bad:
            response = self._error(asked, 400, str(bad))
        except (web.RequestPayloadError, ConnectionError):
            raise
        except Exception as error:
            # Only the type: a message or a traceback may quote the request.
            log.error("a request failed: %s", _place(error))
            response = self._error(asked, 500, "the gateway failed; its log says where")
        if not response.prepared:
            response.headers.update(_ALWAYS)
        return response

    def _error(
        self, asked: Asked, status: int, message: str, code: str = "", headers: dict[str, str] | None = None
    ) -> web.Response:
        """Return an error in the dialect of the request."""
        body = errors.body(asked.dialect, status, message, code)
        return web.Response(status=status, body=body, content_type="application/json", headers=headers)

    # --- endpoints ----------------------------------------------------------------------------------------------------

    async def turn(self, asked: Asked) -> web.StreamResponse:
        """Answer a turn."""
        return await self._answering.answer(self, asked.request, asked.dialect, asked.work_class)

    async def count_tokens(self, asked: Asked) -> web.StreamResponse:
        """Count a turn's tokens, as a local server does it."""
        turn = messages.read(await self.read(asked.request), headers_of(asked.request))
        count = await self._answering.count(turn, asked.work_class)
        if count is None:
            message = "no backend of this turn counts tokens"
            return self._error(asked, 501, message, "not_supported", {"x-should-retry": "false"})
        return _json({"input_tokens": count})

    async def models(self, asked: Asked) -> web.StreamResponse:
        """List what a client may ask for."""
        rows = self._models()
        ends = {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]} if rows else {"first_id": None, "last_id": None}
        return _json({"object": "list", "data": rows, "has_more": False, **ends})

    async def model(self, asked: Asked) -> web.StreamResponse:
        """Show one of them."""
        for row in self._models():
            if row["id"] == asked.rest:
                return _json(row)
        return self._error(asked, 404, "the gateway has no such model: GET /v1/models lists them", "model_not_found")

    def _models(self) -> list[dict[str, object]]:
        context = self._answering.context()
        created = int(self._started)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
        return [
            {
                "id": spelling + alias,
                "object": "model",
                "type": "model",
                "display_name": f"Farmhand {alias}",
                "created": created,
                "created_at": at,
                "owned_by": "farmhand",
                "context_window": context,
            }
            for spelling in _SPELLINGS
            for alias in self._answering.setup.config.aliases
        ]

    async def hello(self, asked: Asked) -> web.StreamResponse:
        """Answer what the claude CLI asks first."""
        return web.Response()

    async def health(self, asked: Asked) -> web.StreamResponse:
        """Say that the gateway runs, and nothing else."""
        return _json({"ok": True, "version": __version__})

    async def metrics(self, asked: Asked) -> web.StreamResponse:
        """Show the figures for Prometheus."""
        return web.Response(body=self._answering.metrics.text(), headers={"content-type": "text/plain; version=0.0.4"})

    async def status(self, asked: Asked) -> web.StreamResponse:
        """Show what runs, for `farmhand gateway status`."""
        return _json({"version": __version__, "started_at": self._started} | self._answering.status())

    async def decisions(self, asked: Asked) -> web.StreamResponse:
        """Show the last decisions."""
        records = await asyncio.to_thread(ledger.recent, self._answering.ledger.path, _SHOWN)
        return _json({"decisions": [record.decision for record in records]})

    async def allow(self, asked: Asked) -> web.StreamResponse:
        """Open the metered backend for a time, or close it."""
        try:
            request = msgspec.json.decode(await self.read(asked.request), type=AllowRequest)
            return _json(await self._answering.allow(request))
        except msgspec.DecodeError as error:
            return self._error(asked, 400, str(error))
        except FarmhandError as error:
            return _json({"error": error.as_dict()}, 409)

    async def reload(self, asked: Asked) -> web.StreamResponse:
        """Read the settings again; if they are wrong, the old ones stay."""
        try:
            await self._reload()
        except FarmhandError as error:
            return _json({"error": error.as_dict()}, 409)
        return _json({"reloaded": True})


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def _place(error: BaseException) -> str:
    """Return an error's type and where it was raised, without its words."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace is not None else "?"
    return f"{type(error).__name__} at {where}"


#: What is served, by method and path. A path that ends with a slash is the prefix of its last part.
ROUTES: dict[tuple[str, str], Route] = {
    ("POST", "/v1/messages"): Route(GatewayServer.turn),
    ("POST", "/v1/messages/count_tokens"): Route(GatewayServer.count_tokens),
    ("POST", "/v1/chat/completions"): Route(GatewayServer.turn),
    ("POST", "/v1/responses"): Route(GatewayServer.turn),
    ("GET", "/v1/models"): Route(GatewayServer.models),
    ("GET", _MODEL_PREFIX): Route(GatewayServer.model),
    ("HEAD", "/"): Route(GatewayServer.hello, public=True),
    ("HEAD", "/api/hello"): Route(GatewayServer.hello, public=True),
    ("GET", "/health"): Route(GatewayServer.health, public=True),
    ("GET", "/metrics"): Route(GatewayServer.metrics),
    ("GET", "/farmhand/v1/status"): Route(GatewayServer.status, control=True),
    ("GET", "/farmhand/v1/decisions"): Route(GatewayServer.decisions, control=True),
    ("POST", "/farmhand/v1/allow"): Route(GatewayServer.allow, control=True),
    ("POST", "/farmhand/v1/reload"): Route(GatewayServer.reload, control=True),
}
