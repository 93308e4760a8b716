"""The wire's routes about batches, and those that hand out the ledger's records in order."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from farmhand.agent.http.auth import NotThere, answer, answer_lines, number
from farmhand.agent.http.requests import read_batch
from farmhand.agent.http.status import Status
from farmhand.agent.scheduler import Scheduler
from farmhand.agent.store.ledger import Ledger, NoSuchBatch
from farmhand.agent.store.rows import BatchView, IndexedResult
from farmhand.core.errors import UsageError
from farmhand.core.task import TASK_ID

#: Longest that one request waits for results.
MAX_WAIT_S = 30.0
_MAX_NO = 2.0**53


class BatchRoutes:
    """Batches, their results as they come, and the records of charges and finished tasks."""

    def __init__(self, ledger: Ledger, scheduler: Scheduler, status: Status) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._status = status

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.put("/v1/batches/{batch}", self._put),
            web.get("/v1/batches/{batch}", self._show),
            web.delete("/v1/batches/{batch}", self._cancel),
            web.get("/v1/results", self._results),
            web.get("/v1/charges", self._charges),
            web.get("/v1/finished", self._finished),
        ]

    async def _put(self, request: web.Request) -> web.Response:
        name = request.match_info["batch"]
        if not TASK_ID.fullmatch(name):
            raise UsageError(f"the batch's name does not match {TASK_ID.pattern}", code="invalid_batch")
        limits = read_batch(await request.read())
        return answer({"batch": await self._scheduler.put_batch(name, limits.max_pico, limits.concurrency)})

    async def _show(self, request: web.Request) -> web.Response:
        return answer({"batch": self._known(request.match_info["batch"])})

    async def _cancel(self, request: web.Request) -> web.Response:
        name = request.match_info["batch"]
        self._known(name)
        cancelled = await self._scheduler.cancel_batch(name)
        return answer({"batch": self._known(name), "cancelled": cancelled})

    def _known(self, name: str) -> BatchView:
        try:
            return self._ledger.batch(name)
        except NoSuchBatch:
            raise NotThere(f"no batch {name!r:.80}", code="no_such_batch") from None

    async def _results(self, request: web.Request) -> web.Response:
        """Results behind `after`; without any, wait for the next while some task of the batch is unfinished."""
        query = request.query
        name = query.get("batch", "")
        if not name:
            raise UsageError("batch is missing: name the batch whose results are wanted")
        after, limit = self._page(request, 1000)
        until = time.monotonic() + number(query.get("wait_s", "0"), "wait_s", 0, MAX_WAIT_S)
        while True:
            batch = self._known(name)
            results: list[IndexedResult] = []
            if batch.last_done > after:
                results = self._ledger.batch_results(name, after, limit)
            left = until - time.monotonic()
            if results or not batch.unfinished or left <= 0 or self._scheduler.stopping:
                break
            await self._scheduler.progress.wait(name, left)
        return answer(
            {
                "results": results,
                "next": results[-1].done_no if results else after,
                "unfinished": batch.unfinished,
                "waiting": self._status.waiting(batch),
            }
        )

    async def _charges(self, request: web.Request) -> web.Response:
        after, limit = self._page(request, 10_000)
        return answer_lines(await asyncio.to_thread(self._ledger.apart, lambda reads: reads.charges(after, limit)))

    async def _finished(self, request: web.Request) -> web.Response:
        after, limit = self._page(request, 10_000)
        return answer_lines(await asyncio.to_thread(self._ledger.apart, lambda reads: reads.finished(after, limit)))

    @staticmethod
    def _page(request: web.Request, most: int) -> tuple[int, int]:
        query = request.query
        after = int(number(query.get("after", "0"), "after", 0, _MAX_NO))
        return after, int(number(query.get("limit", str(min(most, 1000))), "limit", 1, most))
