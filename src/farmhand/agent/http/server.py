"""The wire v1, served: HTTP/1.1 on the agent's Unix socket. `front` is what every request passes first."""

from __future__ import annotations

import time
from collections import Counter

from aiohttp import web

from farmhand import __version__
from farmhand.agent.about import cli_version
from farmhand.agent.config import Config
from farmhand.agent.http.auth import MAX_BODY, AuthMiddleware, NotThere, Pruned, answer, as_json, number, sign
from farmhand.agent.http.batches import BatchRoutes
from farmhand.agent.http.metrics import Metrics
from farmhand.agent.http.requests import check_schemas, read_cancel, read_drain, read_tasks
from farmhand.agent.http.status import Status
from farmhand.agent.scheduler import Scheduler
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.queries import KnownTask
from farmhand.core.errors import UsageError
from farmhand.core.keys import check_format, is_fingerprint
from farmhand.core.task import FINAL_STATES
from farmhand.meter import Key, Limits
from farmhand.wire.schema import KEY_HEADER, WIRE

_STATES = FINAL_STATES | {"queued", "awaiting_key", "running"}


class AgentServer:
    """The routes of the wire over one scheduler and one ledger; those of batches and records are in `feeds`."""

    def __init__(
        self, config: Config, ledger: Ledger, scheduler: Scheduler, limits: Limits, errors: Counter[str]
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._scheduler = scheduler
        self._status_of = Status(ledger, scheduler, limits)
        self._feeds = BatchRoutes(ledger, scheduler, self._status_of)
        self._started = time.monotonic()
        self._metrics = Metrics(ledger, scheduler, self._status_of, limits, errors)

    def app(self) -> web.Application:
        """The application to serve."""
        app = web.Application(middlewares=[AuthMiddleware(self._config).middleware], client_max_size=MAX_BODY)
        app.add_routes(
            [
                web.post("/v1/tasks", self._submit),
                web.get("/v1/tasks", self._list),
                web.post("/v1/tasks/cancel", self._cancel_many),
                web.get("/v1/tasks/{id}", self._show),
                web.get("/v1/tasks/{id}/events", self._events),
                web.delete("/v1/tasks/{id}", self._cancel),
                web.put("/v1/key", self._key),
                web.delete("/v1/key/{fingerprint}", self._forget),
                web.put("/v1/drain", self._drain),
                web.get("/v1/usage", self._usage),
                web.get("/v1/status", self._status),
                web.get("/metrics", self._metrics_text),
                *self._feeds.routes(),
            ]
        )
        app.on_response_prepare.append(sign)
        return app

    @staticmethod
    def _key_of(request: web.Request, *, required: bool) -> Key | None:
        value = request.headers.get(KEY_HEADER)
        if value is None and not required:
            return None
        try:
            return Key(check_format(value or ""))
        except ValueError as error:
            raise UsageError(str(error), code="bad_key") from None

    async def _submit(self, request: web.Request) -> web.Response:
        key = self._key_of(request, required=False)
        tasks = read_tasks(await request.read(), self._config)
        await check_schemas(tasks)
        states = await self._scheduler.submit(tasks, key)
        return answer({"tasks": [{"id": task_id, "state": state} for task_id, state in states.items()]})

    async def _list(self, request: web.Request) -> web.Response:
        query = request.query
        state, after = query.get("state"), query.get("after")
        if state is not None and state not in _STATES:
            raise UsageError(f"state {state!r:.40} is none of {', '.join(sorted(_STATES))}")
        limit = int(number(query.get("limit", "100"), "limit", 1, 1000))
        try:
            page = self._ledger.results(batch=query.get("batch"), state=state, after=after, limit=limit)
        except KeyError:
            raise NotThere(f"no task {after!r:.80} to go on after") from None
        more = len(page.results) == limit or page.cut
        return answer({"tasks": page.results, "next": page.results[-1].id if more else None})

    async def _show(self, request: web.Request) -> web.Response:
        self._known(request)
        return answer({"task": self._ledger.result(request.match_info["id"])})

    async def _cancel(self, request: web.Request) -> web.Response:
        self._known(request)
        return answer({"task": await self._scheduler.cancel(request.match_info["id"])})

    async def _cancel_many(self, request: web.Request) -> web.Response:
        states = await self._scheduler.cancel_many(read_cancel(await request.read()))
        return answer({"tasks": [{"id": task_id, "state": state} for task_id, state in states.items()]})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self._known(request)
        stream = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await stream.prepare(request)
        async for event in self._scheduler.events(request.match_info["id"]):
            await stream.write(as_json(event) + b"\n")
        await stream.write_eof()
        return stream

    def _known(self, request: web.Request) -> KnownTask:
        """Where the task of the request stands. Raises NotThere, and Pruned where nothing is left to show of it."""
        task_id = request.match_info["id"]
        try:
            known = self._ledger.known(task_id)
        except KeyError:
            raise NotThere(f"no task {task_id!r:.80}") from None
        if known.pruned:
            raise Pruned(f"task {task_id!r:.80} has run, and its content is pruned", hint="see jada_agent_retention_*")
        return known

    async def _key(self, request: web.Request) -> web.Response:
        key = self._key_of(request, required=True)
        assert key is not None  # noqa: S101  (required)
        supersedes = request.query.get("supersedes", "")
        if supersedes and not is_fingerprint(supersedes):
            raise UsageError("supersedes is not a key's fingerprint")
        key, resumed = await self._scheduler.set_key(key, supersedes)
        return answer({"fingerprint": key.fingerprint, "tasks_resumed": resumed})

    async def _forget(self, request: web.Request) -> web.Response:
        fingerprint = request.match_info["fingerprint"]
        if not is_fingerprint(fingerprint):
            raise UsageError("what is to be forgotten is named by its fingerprint")
        return answer({"fingerprint": fingerprint, "forgotten": self._scheduler.forget_key(fingerprint)})

    async def _drain(self, request: web.Request) -> web.Response:
        self._scheduler.set_mode(read_drain(await request.read()))
        return await self._status(request)

    async def _usage(self, request: web.Request) -> web.Response:
        since = number(request.query.get("since", "0"), "since", 0, 1e12)
        return answer(await self._ledger.read_totals(since))

    async def _status(self, _request: web.Request) -> web.Response:
        about = {
            "version": __version__,
            "wire": WIRE,
            "state": "draining" if self._scheduler.draining else "running",
            "uptime_s": round(time.monotonic() - self._started, 1),
            "upstream": self._config.upstream_url,
            "network_full": self._config.network_full,
            "time": round(time.time(), 3),
            "cli": cli_version(self._config.claude_path),
        }
        return answer(about | self._status_of.as_dict())

    async def _metrics_text(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"content-type": "text/plain; version=0.0.4"})
