"""The control endpoints of Message Batches: the plan, the faults, moving batches on, what became of each request."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from tests.support.messages_api.batch import Batch, Plan
from tests.support.messages_api.batches import Advance
from tests.support.messages_api.control import STATE, json_response, read_as
from tests.support.messages_api.errors import ApiError
from tests.support.messages_api.faults import BatchFault


def _view(request: web.Request, batch: Batch) -> dict[str, Any]:
    base = f"{request.scheme}://{request.host}"
    return {"batch": batch.view(base), "processed": batch.done, "requests": len(batch.items), "usage": batch.usage}


async def get_batches(request: web.Request) -> web.Response:
    """Every batch, the newest first, with how many of its requests are processed."""
    return json_response([_view(request, batch) for batch in request.app[STATE].batches.all()])


async def get_batch(request: web.Request) -> web.Response:
    """One batch and the outcome of each request processed so far, by custom_id, also before the end."""
    try:
        batch = request.app[STATE].batches.get(request.match_info["id"])
    except ApiError as error:
        raise web.HTTPNotFound(text=f"{request.path}: no such batch\n") from error
    outcomes = {item.custom_id: kind for item, kind in zip(batch.items, batch.kinds, strict=False)}
    return json_response(_view(request, batch) | {"outcomes": outcomes})


async def post_batches(request: web.Request) -> web.Response:
    """Move batches on (`Advance`); answers with those it moved."""
    given: Advance = await read_as(request, Advance)
    try:
        moved = await request.app[STATE].batches.advance(given)
    except ApiError as error:
        raise web.HTTPNotFound(text=f"{request.path}: no batch {given.id}\n") from error
    return json_response([_view(request, batch) for batch in moved])


async def put_plan(request: web.Request) -> web.Response:
    """Set the plan of the batches to come."""
    plan: Plan = await read_as(request, Plan)
    request.app[STATE].batches.plan = plan
    return json_response(plan)


async def get_plan(request: web.Request) -> web.Response:
    return json_response(request.app[STATE].batches.plan)


async def post_faults(request: web.Request) -> web.Response:
    given: BatchFault | list[BatchFault] = await read_as(request, BatchFault | list[BatchFault])
    faults = request.app[STATE].batches.faults
    faults.add(*(given if isinstance(given, list) else [given]))
    return json_response(faults.pending())


async def get_faults(request: web.Request) -> web.Response:
    return json_response(request.app[STATE].batches.faults.pending())


async def delete_faults(request: web.Request) -> web.Response:
    request.app[STATE].batches.faults.clear()
    return json_response([])


ROUTES = [
    web.get("/_control/batches", get_batches),
    web.post("/_control/batches", post_batches),
    web.get("/_control/batches/plan", get_plan),
    web.put("/_control/batches/plan", put_plan),
    web.get("/_control/batches/faults", get_faults),
    web.post("/_control/batches/faults", post_faults),
    web.delete("/_control/batches/faults", delete_faults),
    web.get("/_control/batches/{id}", get_batch),
]
