"""All Message Batches of a running API, and the work that processes them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from tests.support.messages_api import batch_check, validate
from tests.support.messages_api.answer import new_id
from tests.support.messages_api.batch import Batch, Item, Plan
from tests.support.messages_api.errors import ApiError, bad
from tests.support.messages_api.faults import BatchFault, Queue
from tests.support.messages_api.log import Entry, Log
from tests.support.messages_api.reply import measure, reply
from tests.support.messages_api.rules import Rules
from tests.support.messages_api.usage import PromptCache

_logger = logging.getLogger(__name__)
#: How long requests are processed before others of the server's tasks have their turn.
SLICE_S = 0.005


class Advance(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the control endpoint does to the open batches, or to the one named `id`.

    `process`: `fraction` of all their requests, if not yet more; `finish`: all, `after_ms` from now (a batch being
    cancelled: end it); `expire`: end them now, what is not processed expires; `archive`: take the results of ended ones
    away, as the provider does after 29 days.
    """

    action: Literal["process", "finish", "expire", "archive"]
    id: str = ""
    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    after_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Batches:
    """Batches in the order of their creation. All accepted keys are of one workspace: each sees every batch."""

    def __init__(self, rules: Rules, cache: PromptCache, log: Log) -> None:
        self._rules, self._cache, self._log = rules, cache, log
        self._batches: dict[str, Batch] = {}
        self._work: dict[str, asyncio.Task[None]] = {}
        self.plan = Plan()
        self.faults: Queue[BatchFault] = Queue()

    def create(self, items: list[Item], headers: Mapping[str, str], number: int) -> Batch:
        """Begin a batch of checked items. `number` is that of its entry in the log."""
        kept = {n: headers[n] for n in ("anthropic-version", "anthropic-beta") if n in headers}
        batch = Batch(items, kept, validate.presented_key(headers), self.plan, number)
        self._batches[batch.id] = batch
        self._work[batch.id] = asyncio.create_task(self._process(batch))
        return batch

    def get(self, id_: str) -> Batch:
        """The batch, or a 404."""
        if id_ not in self._batches:
            raise ApiError(404)
        return self._batches[id_]

    def all(self) -> list[Batch]:
        """Every batch, the newest first."""
        return list(reversed(self._batches.values()))

    def waiting(self) -> int:
        """Requests of all batches that are not yet processed."""
        return sum(len(batch.items) - batch.done for batch in self._batches.values())

    def page(self, limit: int, after_id: str, before_id: str) -> tuple[list[Batch], bool]:
        """A page of the list, and whether there is more beyond it. Assumed: an unknown cursor is a 400."""
        found = self.all()
        place = {batch.id: i for i, batch in enumerate(found)}
        for name, id_ in (("after_id", after_id), ("before_id", before_id)):
            if id_ and id_ not in place:
                raise bad(name, "Invalid cursor")
        if before_id:
            found = found[: place[before_id]]
            return found[-limit:], len(found) > limit
        if after_id:
            found = found[place[after_id] + 1 :]
        return found[:limit], len(found) > limit

    def delete(self, batch: Batch) -> None:
        """Forget an ended batch. Assumed: one that has not ended is refused with a 400."""
        if batch.ended is None:
            raise ApiError(400, f"Batch {batch.id} cannot be deleted while it is being processed. Cancel it first.")
        self._forget(batch.id)

    def clear(self) -> None:
        """Forget all, with their plan and faults."""
        for id_ in list(self._batches):
            self._forget(id_)
        self.plan = Plan()
        self.faults.clear()

    def _forget(self, id_: str) -> None:
        self._batches.pop(id_).release()
        self._work.pop(id_).cancel()

    async def stop(self) -> None:
        """End the work."""
        work = list(self._work.values())
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    async def advance(self, given: Advance) -> list[Batch]:
        """Do what the control endpoint was told; returns when it is done, but for what `after_ms` puts off."""
        chosen = [self.get(given.id)] if given.id else self.all()
        if given.action == "archive":
            chosen = [batch for batch in chosen if batch.ended is not None]
            for batch in chosen:
                batch.archive()
            return chosen
        chosen = [batch for batch in chosen if batch.ended is None]
        now = time.time()
        for batch in chosen:
            if given.action == "process":
                if batch.cancelled is None:
                    batch.allowed = max(batch.allowed, round(len(batch.items) * given.fraction))
            elif given.action == "finish":
                batch.finish_at = now + given.after_ms / 1000
            else:
                batch.end("expired")
            batch.wake()
        for batch in chosen:
            await batch.idle()
        return chosen

    async def _process(self, batch: Batch) -> None:
        while batch.ended is None:
            now = time.time()
            if now >= batch.expires:
                batch.end("expired")
            elif batch.done < batch.due(now):
                self._slice(batch)
                await asyncio.sleep(0)
            elif batch.finished(now):
                batch.end("canceled")
            else:
                await batch.pause(now)

    def _slice(self, batch: Batch) -> None:
        until = time.perf_counter() + SLICE_S
        while batch.done < batch.due(time.time()) and time.perf_counter() < until:
            item = batch.items[batch.done]
            entry = Entry(
                n=batch.number,
                time=time.time(),
                method="BATCH",
                path=f"/v1/messages/batches/{batch.id}",
                query="",
                headers={},
                size=len(bytes(item.params)),
                sha256="",
                batch=batch.id,
                custom_id=item.custom_id,
            )
            batch.settle(self._result(batch, item, entry))
            entry.result = batch.kinds[-1]
            self._log.close(entry)

    def _result(self, batch: Batch, item: Item, entry: Entry) -> dict[str, Any]:
        """What becomes of one request: the same checks and the same answer as from /v1/messages."""
        raw = bytes(item.params)
        entry.request_id = new_id("req_011C", 20)
        try:
            try:
                body = validate.parse(raw)
                entry.model = str(body.get("model", ""))
            finally:
                fault = self.faults.take(lambda fault: fault.hits(item.custom_id, entry.model, raw))
                entry.fault = "" if fault is None else f"batch {fault.result}"
            if fault is not None and fault.result == "expired":
                return {"type": "expired"}
            if fault is not None:
                raise ApiError(fault.status, fault.message)
            batch_check.check_params(body)
            checked = validate.check(body, batch.headers)
            message = reply(checked, measure(checked, batch.key, self._cache, store=True), self._rules, tier="batch")
        except ApiError as error:
            entry.status, entry.error = error.status, error.message
            return {"type": "errored", "error": error.body(entry.request_id)}
        except Exception as error:  # a fault of this stand-in must be seen as such, and not stop the batch
            _logger.exception("request %s of %s", item.custom_id, batch.id)
            entry.status, entry.error = 500, f"bug in the loopback API: {error!r}"
            return {"type": "errored", "error": ApiError(500, entry.error).body(entry.request_id)}
        entry.status, entry.usage = 200, message["usage"]
        return {"type": "succeeded", "message": message}
