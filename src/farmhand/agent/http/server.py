"""The HTTP API v1 on the agent's Unix socket. Every request passes the checks in `auth` first."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from farmhand.agent.counting import TaskCounter
from farmhand.agent.http import auth
from farmhand.agent.http.auth import answer, answer_lines
from farmhand.agent.http.metrics import Metrics
from farmhand.agent.http.requests import check_schemas, no_repositories, read_body, read_key, read_number, read_tasks
from farmhand.agent.http.status import Status
from farmhand.agent.scheduler import Scheduler
from farmhand.agent.store import history
from farmhand.agent.store.queries import BatchView, NoSuchBatch
from farmhand.agent.store.schema import STATES
from farmhand.agent.task_files import TaskFiles
from farmhand.core.errors import UsageError
from farmhand.core.keys import is_fingerprint
from farmhand.core.pots import NAME
from farmhand.core.task import TASK_ID
from farmhand.meter.meter import Meter
from farmhand.wire.requests import BatchLimits, Cancellation, DrainOrder, Funding
from farmhand.wire.schema import WIRE

#: Longest time that one request waits for results, in seconds.
MAX_WAIT_S = 30.0
_MAX_NO = 2.0**53
#: The names in the query of each path; all others are refused, so that no misspelt one is taken for its default.
_PAGE = frozenset({"after", "limit"})
_QUERY = {
    "/v1/tasks": _PAGE | {"batch", "state"},
    "/v1/results": _PAGE | {"batch", "wait_s"},
    "/v1/history": _PAGE | {"id", "newest"},
    "/v1/charges": _PAGE | {"task"},
    "/v1/finished": _PAGE,
    "/v1/usage": frozenset({"since"}),
    "/v1/key": frozenset({"supersedes", "renews", "pot"}),
}


class AgentServer:
    """The API's routes on top of one scheduler, its ledger, and the meter."""

    def __init__(self, scheduler: Scheduler, meter: Meter) -> None:
        self._config = scheduler.context.config
        self._ledger = scheduler.context.ledger
        self._scheduler = scheduler
        self._files = TaskFiles(self._config.state_dir)
        self._status = Status(scheduler, meter.limits)
        self._metrics = Metrics(scheduler, self._status, meter.limits, meter.errors)
        self._counter = TaskCounter(meter, scheduler.pots)

    def app(self) -> web.Application:
        """Return the web application."""
        middlewares = [auth.middleware(self._config.allowed_groups, self._config.metrics_groups), _known_query]
        app = web.Application(middlewares=middlewares, client_max_size=auth.MAX_BODY)
        app.add_routes(
            [
                web.post("/v1/tasks", self._submit),
                web.get("/v1/tasks", self._list),
                web.post("/v1/tasks/check", self._check),
                web.post("/v1/tasks/count", self._count),
                web.post("/v1/tasks/cancel", self._cancel_many),
                web.get("/v1/tasks/{id}", self._show),
                web.get("/v1/tasks/{id}/events", self._events),
                web.delete("/v1/tasks/{id}", self._cancel),
                web.put("/v1/batches/{batch}", self._put_batch),
                web.get("/v1/batches/{batch}", self._show_batch),
                web.delete("/v1/batches/{batch}", self._cancel_batch),
                web.put("/v1/files/{id}", self._put_bundle),
                web.get("/v1/files/{id}/{name}", self._file),
                web.get("/v1/results", self._results),
                web.get("/v1/history", self._history),
                web.get("/v1/charges", self._charges),
                web.get("/v1/finished", self._finished),
                web.put("/v1/key", self._set_key),
                web.delete("/v1/key/{fingerprint}", self._forget_key),
                web.put("/v1/drain", self._drain),
                web.get("/v1/usage", self._usage),
                web.get("/v1/status", self._show_status),
                web.get("/metrics", self._show_metrics),
            ]
        )
        app.on_response_prepare.append(auth.sign)
        return app

    # --- tasks ----------------------------------------------------------------------------------------------------

    async def _submit(self, request: web.Request) -> web.Response:
        key = read_key(request, self._config)
        tasks = read_tasks(await request.read(), self._config)
        await check_schemas(tasks)
        return _states(await self._scheduler.submit(tasks, key))

    async def _check(self, request: web.Request) -> web.Response:
        tasks = read_tasks(await request.read(), self._config)
        await check_schemas(tasks)
        return _states(await self._ledger.check(tasks))

    async def _count(self, request: web.Request) -> web.Response:
        key, tasks = read_key(request, self._config), read_tasks(await request.read(), self._config)
        await check_schemas(tasks)
        return answer({"tasks": await self._counter.count(tasks, key)})

    async def _list(self, request: web.Request) -> web.Response:
        query = request.query
        state, after = query.get("state"), query.get("after")
        if state is not None and state not in STATES:
            raise UsageError(f"state {state!r:.40} is not one of {', '.join(sorted(STATES))}")
        limit = int(read_number(request, "limit", 100, 1, 1000))
        try:
            found, more = self._ledger.results(batch=query.get("batch"), state=state, after=after, limit=limit)
        except KeyError:
            raise UsageError(f"no task {after!r:.80} to go on after", code="no_such_task") from None
        return answer({"tasks": found, "next": found[-1].id if more else None})

    async def _show(self, request: web.Request) -> web.Response:
        return answer({"task": self._ledger.result(self._task_id(request))})

    async def _cancel(self, request: web.Request) -> web.Response:
        return answer({"task": await self._scheduler.cancel(self._task_id(request))})

    async def _cancel_many(self, request: web.Request) -> web.Response:
        return _states(await self._scheduler.cancel_many(read_body(await request.read(), Cancellation).ids))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        task_id = self._task_id(request)
        stream = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await stream.prepare(request)
        async for event in self._scheduler.registry.events(task_id, self._status.of_task):
            await stream.write(auth.as_json(event) + b"\n")
        await stream.write_eof()
        return stream

    def _task_id(self, request: web.Request) -> str:
        """Return the task id of the request. Raise UsageError if it is unknown, or its content is deleted."""
        task_id = request.match_info["id"]
        try:
            known = self._ledger.known(task_id)
        except KeyError:
            raise UsageError(f"no task {task_id!r:.80}", code="no_such_task") from None
        if known.pruned:
            what, hint = f"task {task_id!r:.80} has run, and its content is pruned", "see jada_agent_retention_*"
            raise UsageError(what, hint=hint, code="pruned")
        return task_id

    async def _history(self, request: web.Request) -> web.Response:
        """Return tasks whose id begins with `id`, with their text so far, or a page of all."""
        config = self._config
        kept = {"retention_days": config.retention_days, "history_days": config.history_days}
        if (start := request.query.get("id")) is not None:
            if not TASK_ID.fullmatch(start):
                raise UsageError(f"{start!r:.80} is not the beginning of a task's id")
            page = await self._ledger.apart(lambda reads: history.by_id(reads, start))
            for task in page.tasks:
                if (live := self._scheduler.registry.live.get(task.id)) is not None:
                    task.text = "".join(live.text)
        else:
            after, limit = _page(request, 1000)
            newest = int(read_number(request, "newest", _MAX_NO, 1, _MAX_NO))
            page = await self._ledger.apart(lambda reads: history.page(reads, after, newest, limit))
        return answer(msgspec.structs.asdict(page) | {"ledger": self._ledger.ledger_id()} | kept)

    # --- files of repository tasks ------------------------------------------------------------------------------------

    async def _put_bundle(self, request: web.Request) -> web.Response:
        if not self._config.repositories:
            raise no_repositories("this request")
        size = await self._files.receive(request.match_info["id"], request.content.iter_any())
        return answer({"bytes": size})

    async def _file(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(self._files.output(self._task_id(request), request.match_info["name"]))

    # --- batches --------------------------------------------------------------------------------------------------

    async def _put_batch(self, request: web.Request) -> web.Response:
        name = request.match_info["batch"]
        if not TASK_ID.fullmatch(name):
            raise UsageError(f"the batch's name does not match {TASK_ID.pattern}", code="invalid_batch")
        limits = read_body(await request.read(), BatchLimits, "invalid_batch")
        return answer({"batch": await self._scheduler.put_batch(name, limits.max_pico, limits.concurrency)})

    async def _show_batch(self, request: web.Request) -> web.Response:
        return answer({"batch": self._batch(request.match_info["batch"])})

    async def _cancel_batch(self, request: web.Request) -> web.Response:
        name = self._batch(request.match_info["batch"]).batch
        cancelled = await self._scheduler.cancel_batch(name)
        return answer({"batch": self._batch(name), "cancelled": cancelled})

    def _batch(self, name: str) -> BatchView:
        try:
            return self._ledger.batch(name)
        except NoSuchBatch:
            raise UsageError(f"no batch {name!r:.80}", code="no_such_batch") from None

    async def _results(self, request: web.Request) -> web.Response:
        """Return the results after `after`. If there are none, wait while the batch has unfinished tasks."""
        name = request.query.get("batch", "")
        if not name:
            raise UsageError("batch is missing: name the batch whose results are wanted")
        after, limit = _page(request, 1000)
        until = time.monotonic() + read_number(request, "wait_s", 0, 0, MAX_WAIT_S)
        while True:
            batch = self._batch(name)
            results = self._ledger.batch_results(name, after, limit) if batch.last_done > after else []
            left = until - time.monotonic()
            if results or not batch.unfinished or left <= 0 or self._scheduler.context.stopping:
                break
            await self._scheduler.registry.wait_for_result(name, left)
        return answer(
            {
                "results": results,
                "next": results[-1].finish_seq if results else after,
                "unfinished": batch.unfinished,
                "waiting": self._status.waiting(batch),
            }
        )

    # --- records, keys, the agent -------------------------------------------------------------------------------------

    async def _charges(self, request: web.Request) -> web.Response:
        after, limit = _page(request, 10_000)
        task = request.query.get("task", "")
        return answer_lines(await self._ledger.apart(lambda reads: reads.charges(after, limit, task)))

    async def _finished(self, request: web.Request) -> web.Response:
        after, limit = _page(request, 10_000)
        return answer_lines(await self._ledger.apart(lambda reads: reads.finished(after, limit)))

    async def _usage(self, request: web.Request) -> web.Response:
        since = read_number(request, "since", 0, 0, 1e12)
        return answer(await self._ledger.apart(lambda reads: reads.totals(since)))

    async def _set_key(self, request: web.Request) -> web.Response:
        key = read_key(request, self._config)
        if key is None:
            raise UsageError("the API key is empty", code="bad_key")
        supersedes, renews = (_fingerprint(request, name) for name in ("supersedes", "renews"))
        if renews and not key.bearer:
            raise UsageError("only a bearer token is renewed: another API key supersedes one", code="bad_key")
        if renews:
            key, resumed = await self._scheduler.renew_key(renews, key)
        else:
            pot, funding = request.query.get("pot", ""), None
            if pot and not NAME.fullmatch(pot):
                raise UsageError(f"the pot's name does not match {NAME.pattern}", code="invalid_pot")
            if pot and (body := await request.read()):
                funding = read_body(body, Funding, "invalid_pot", f"the funding of the pot {pot}")
            key, resumed = await self._scheduler.set_key(key, supersedes, pot, funding)
        return answer({"fingerprint": key.fingerprint, "tasks_resumed": resumed})

    async def _forget_key(self, request: web.Request) -> web.Response:
        fingerprint = request.match_info["fingerprint"]
        if not is_fingerprint(fingerprint):
            raise UsageError("what is to be forgotten is named by its fingerprint")
        return answer({"fingerprint": fingerprint, "forgotten": self._scheduler.forget_key(fingerprint)})

    async def _drain(self, request: web.Request) -> web.Response:
        self._scheduler.set_mode(read_body(await request.read(), DrainOrder).mode)
        return await self._show_status(request)

    async def _show_status(self, _request: web.Request) -> web.Response:
        return answer({"wire": WIRE} | self._status.as_dict())

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"content-type": "text/plain; version=0.0.4"})


@web.middleware
async def _known_query(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Raise UsageError for a name in the query that the path does not know."""
    resource = request.match_info.route.resource
    known = _QUERY.get(resource.canonical if resource is not None else "", frozenset())
    if resource is not None and (odd := sorted(request.query.keys() - known)):
        hint = f"known: {', '.join(sorted(known))}" if known else "it has none"
        raise UsageError(f"{request.path:.80}: unknown in the query: {odd[0]!r:.40}", hint=hint)
    return await handler(request)


def _states(states: Mapping[str, str]) -> web.Response:
    return answer({"tasks": [{"id": task_id, "state": state} for task_id, state in states.items()]})


def _fingerprint(request: web.Request, name: str) -> str:
    text = request.query.get(name, "")
    if text and not is_fingerprint(text):
        raise UsageError(f"{name} is not a key's fingerprint")
    return text


def _page(request: web.Request, most: int) -> tuple[int, int]:
    """Return the query of a page: the number after which it starts, and its maximum length."""
    after = int(read_number(request, "after", 0, 0, _MAX_NO))
    return after, int(read_number(request, "limit", min(most, 1000), 1, most))
