"""The Message Batches endpoints: /v1/messages/batches and what is below it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from tests.support.messages_api import batch_check, validate
from tests.support.messages_api.deliver import deliver_lines, deliver_value
from tests.support.messages_api.errors import ApiError
from tests.support.messages_api.faults import Fault
from tests.support.messages_api.log import Entry
from tests.support.messages_api.state import State

PATH = "/v1/messages/batches"


def methods(path: str) -> tuple[str, ...] | None:
    """The methods of a path, where it is one of these endpoints."""
    parts = path.removeprefix(PATH).split("/")
    if path == PATH:
        return ("GET", "POST")
    if not path.startswith(PATH + "/") or not parts[1]:
        return None
    if len(parts) == 2:
        return ("GET", "DELETE")
    return {"results": ("GET",), "cancel": ("POST",)}.get(parts[2]) if len(parts) == 3 else None


class Call:
    """One call of an endpoint: the request, where it is logged, the fault it meets."""

    def __init__(
        self, request: web.Request, state: State, entry: Entry, raw: bytes, headers: dict[str, str], fault: Fault | None
    ) -> None:
        self.request, self.state, self.entry, self.raw = request, state, entry, raw
        self.headers, self.fault = headers, fault
        self.base_url = f"{request.scheme}://{request.host}"

    async def answer(self, path: str) -> web.StreamResponse:
        """Check what all endpoints check, then do what this one does."""
        validate.check_headers(self.request.headers, self.state.current_keys())
        self.state.limits.admit_batch_call()
        _, _, rest = path.removeprefix(PATH).partition("/")
        id_, _, verb = rest.partition("/")
        if not id_:
            return await (self._create() if self.request.method == "POST" else self._list())
        self.entry.batch = id_
        verbs: dict[str, Callable[[str], Awaitable[web.StreamResponse]]] = {
            "cancel": self._cancel,
            "results": self._results,
        }
        if verb:
            return await verbs[verb](id_)
        return await (self._delete(id_) if self.request.method == "DELETE" else self._retrieve(id_))

    async def _value(self, value: object) -> web.StreamResponse:
        self.entry.status = 200
        return await deliver_value(self.request, msgspec.json.encode(value), self.headers, self.fault)

    async def _create(self) -> web.StreamResponse:
        validate.check_content_type(self.request.headers)
        items = batch_check.parse(self.raw)
        batches = self.state.batches
        self.state.limits.admit_to_queue(batches.waiting(), len(items))
        batch = batches.create(items, self.request.headers, self.entry.n)
        self.entry.batch = batch.id
        return await self._value(batch.view(self.base_url))

    async def _retrieve(self, id_: str) -> web.StreamResponse:
        return await self._value(self.state.batches.get(id_).view(self.base_url))

    async def _list(self) -> web.StreamResponse:
        found, more = self.state.batches.page(*batch_check.list_query(self.request.query))
        data = [batch.view(self.base_url) for batch in found]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return await self._value({"data": data, "has_more": more, "first_id": first, "last_id": last})

    async def _cancel(self, id_: str) -> web.StreamResponse:
        """Begin to cancel; again is no error. Assumed: a batch that has ended is refused with a 400."""
        batch = self.state.batches.get(id_)
        if batch.ended is not None:
            raise ApiError(400, f"Batch {id_} cannot be canceled because it has already ended.")
        batch.cancel()
        return await self._value(batch.view(self.base_url))

    async def _delete(self, id_: str) -> web.StreamResponse:
        self.state.batches.delete(self.state.batches.get(id_))
        return await self._value({"id": id_, "type": "message_batch_deleted"})

    async def _results(self, id_: str) -> web.StreamResponse:
        """The results, once there are. Assumed: before the end a 400, after they are archived a 404."""
        batch = self.state.batches.get(id_)
        if batch.archived is not None:
            raise ApiError(404, f"The results of batch {id_} are no longer available.")
        if batch.ended is None:
            raise ApiError(400, f"Batch {id_} has no available results: it is still being processed.")
        self.entry.status = 200
        return await deliver_lines(self.request, batch.lines(), self.headers, self.fault)
