"""The wire v1, served: HTTP/1.1 on the agent's Unix socket. Who may call is decided by the peer's uid and groups."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from farmhand import __version__
from farmhand.agent.about import cli_version
from farmhand.agent.config import Config
from farmhand.agent.door import peer
from farmhand.agent.intake import as_json, read_tasks
from farmhand.agent.ledger import IdConflict, Ledger, LedgerStuck
from farmhand.agent.scheduler import Draining, Scheduler
from farmhand.errors import FarmhandError, Refused, UsageError, WireMismatch
from farmhand.meter import Key
from farmhand.task import FINAL_STATES
from farmhand.wire.keys import check_format

log = logging.getLogger("jada-agent")
#: The version of the wire that this agent speaks.
WIRE = 1
MAX_BODY = 64 * 1024 * 1024
_STATES = FINAL_STATES | {"queued", "awaiting_key", "running"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_STATUS_OF: tuple[tuple[type[FarmhandError], int], ...] = (
    (IdConflict, 409),
    (Draining, 503),
    (LedgerStuck, 507),
    (WireMismatch, 426),
    (Refused, 403),
    (UsageError, 400),
)


class NoSuchTask(UsageError):
    """An id that the ledger does not have."""

    code = "no_such_task"


def error_answer(error: FarmhandError, status: int | None = None) -> web.Response:
    """The wire's form of `error`."""
    if status is None:
        status = (
            404
            if isinstance(error, NoSuchTask)
            else next((s for kind, s in _STATUS_OF if isinstance(error, kind)), 500)
        )
    if error.code == "too_large":
        status = 413
    body = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    return web.Response(status=status, body=as_json(body), content_type="application/json")


def peer_uid_allowed(uid: int, gid: int, groups: Iterable[str]) -> bool:
    """Whether a process of `uid` may speak to the agent: root, the agent's own user, and members of `groups`."""
    if uid in {0, os.getuid()}:
        return True
    try:
        member_of = set(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        member_of = {gid}
    for name in groups:
        try:
            if grp.getgrnam(name).gr_gid in member_of:
                return True
        except KeyError:
            continue
    return False


def _check_wire(request: web.Request) -> None:
    said = request.headers.get("X-Farmhand-Wire", "")
    if said == str(WIRE):
        return
    newer = said.isdigit() and int(said) > WIRE
    raise WireMismatch(
        f"the client speaks wire {said or '(none)'!s:.20}, this agent ({__version__}) speaks {WIRE}",
        code="agent_too_old" if newer else "client_too_old",
        hint="upgrade the agent: run site.yml" if newer else "upgrade farmhand on the workstation",
    )


class Server:
    """The routes of the wire over one scheduler and one ledger."""

    def __init__(self, config: Config, ledger: Ledger, scheduler: Scheduler) -> None:
        self._config = config
        self._ledger = ledger
        self._scheduler = scheduler
        self._started = time.time()
        self._metrics = CollectorRegistry()
        self._metrics.register(_Metrics(scheduler))

    def app(self) -> web.Application:
        """The application to serve."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        app.add_routes(
            [
                web.post("/v1/tasks", self._submit),
                web.get("/v1/tasks", self._list),
                web.get("/v1/tasks/{id}", self._show),
                web.get("/v1/tasks/{id}/events", self._events),
                web.delete("/v1/tasks/{id}", self._cancel),
                web.put("/v1/key", self._key),
                web.get("/v1/usage", self._usage),
                web.get("/v1/status", self._status),
                web.get("/metrics", self._metrics_text),
            ]
        )
        app.on_response_prepare.append(_sign)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Strangers out first, then the wire's version; every failure leaves in the wire's own form."""
        try:
            self._check_peer(request)
            if request.path != "/metrics":
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

    def _check_peer(self, request: web.Request) -> None:
        connection = request.transport.get_extra_info("socket") if request.transport is not None else None
        if connection is None:
            raise Refused("the caller has gone", code="stranger")
        uid, gid = peer(connection)
        if not peer_uid_allowed(uid, gid, self._config.allowed_groups):
            raise Refused(
                f"uid {uid} may not use this agent", code="stranger", hint="allowed: root and the group farmhand"
            )

    @staticmethod
    def _key_of(request: web.Request, *, required: bool) -> Key | None:
        value = request.headers.get("X-Farmhand-Key")
        if value is None and not required:
            return None
        try:
            return Key(check_format(value or ""))
        except ValueError as error:
            raise UsageError(str(error), code="bad_key") from None

    async def _submit(self, request: web.Request) -> web.Response:
        key = self._key_of(request, required=False)
        tasks = read_tasks(await request.read(), self._config)
        states = self._scheduler.submit(tasks, key)
        return _answer({"tasks": [{"id": task_id, "state": state} for task_id, state in states.items()]})

    async def _list(self, request: web.Request) -> web.Response:
        query = request.query
        state, after = query.get("state"), query.get("after")
        if state is not None and state not in _STATES:
            raise UsageError(f"state {state!r:.40} is none of {', '.join(sorted(_STATES))}")
        limit = _number(query.get("limit", "100"), "limit", 1, 1000)
        try:
            page = self._ledger.results(batch=query.get("batch"), state=state, after=after, limit=int(limit))
        except KeyError:
            raise NoSuchTask(f"no task {after!r:.80} to go on after") from None
        return _answer({"tasks": page, "next": page[-1].id if len(page) == limit else None})

    async def _show(self, request: web.Request) -> web.Response:
        return _answer({"task": self._known(request, self._ledger.result)})

    async def _cancel(self, request: web.Request) -> web.Response:
        self._known(request, self._ledger.result)
        return _answer({"task": await self._scheduler.cancel(request.match_info["id"])})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self._known(request, self._ledger.result)
        answer = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await answer.prepare(request)
        async for event in self._scheduler.events(request.match_info["id"]):
            await answer.write(as_json(event) + b"\n")
        await answer.write_eof()
        return answer

    @staticmethod
    def _known(request: web.Request, look_up: Callable[[str], Any]) -> Any:
        try:
            return look_up(request.match_info["id"])
        except KeyError:
            raise NoSuchTask(f"no task {request.match_info['id']!r:.80}") from None

    async def _key(self, request: web.Request) -> web.Response:
        key = self._key_of(request, required=True)
        assert key is not None  # noqa: S101  (required)
        resumed = self._scheduler.set_key(key)
        return _answer({"fingerprint": key.fingerprint, "tasks_resumed": resumed})

    async def _usage(self, request: web.Request) -> web.Response:
        since = _number(request.query.get("since", "0"), "since", 0, 1e12)
        return _answer(self._ledger.totals(since))

    async def _status(self, _request: web.Request) -> web.Response:
        about = {
            "version": __version__,
            "wire": WIRE,
            "state": "draining" if self._scheduler.draining else "running",
            "uptime_s": round(time.time() - self._started, 1),
            "upstream": self._config.upstream_url,
            "network_full": self._config.network_full,
            "time": round(time.time(), 3),
            "cli": cli_version(self._config.claude_path),
        }
        return _answer(about | self._scheduler.status())

    async def _metrics_text(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._metrics), headers={"content-type": "text/plain; version=0.0.4"})


class _Metrics(Collector):
    """The scheduler's numbers in Prometheus' form, read when asked for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Tasks by state, and slots by engine."""
        status = self._scheduler.status()
        tasks = GaugeMetricFamily("farmhand_tasks", "Tasks in the ledger by state.", labels=["state"])
        for state in ("queued", "awaiting_key", "running"):
            tasks.add_metric([state], status[state])
        for state, count in status["finished"].items():
            tasks.add_metric([state], count)
        slots = GaugeMetricFamily("farmhand_slots_free", "Free task slots by engine.", labels=["engine"])
        for engine, numbers in status["slots"].items():
            slots.add_metric([engine], numbers["free"])
        return [tasks, slots]


async def _sign(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Farmhand-Wire"] = str(WIRE)
    response.headers["X-Farmhand-Agent"] = __version__


def _answer(value: Any) -> web.Response:
    return web.Response(body=as_json(value), content_type="application/json")


def _number(text: str, name: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}, not {text!r:.40}")
    return value
