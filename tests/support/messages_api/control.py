"""The control endpoints under /_control/: what a test outside the process tells the API."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from tests.support.messages_api.faults import Fault
from tests.support.messages_api.limits import Limits
from tests.support.messages_api.oauth import Federation
from tests.support.messages_api.rules import Rule
from tests.support.messages_api.state import State

STATE = web.AppKey("state", State)


class Latency(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Milliseconds before an answer begins, and between the events of a stream.

    With `per_s` the requests are held: so many a second, oldest first, whatever their number. 0 holds none.
    """

    ms: float = 0.0
    event_ms: float = 0.0
    per_s: float = 0.0


def json_response(value: Any) -> web.Response:
    """`value` as the answer."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


async def read_as(request: web.Request, type_: Any) -> Any:
    """The body as `type_`, or a 400 that says what is wrong with it."""
    try:
        return msgspec.json.decode(await request.read(), type=type_)
    except msgspec.DecodeError as error:
        raise web.HTTPBadRequest(text=f"{request.path}: {error}\n") from error


async def get_keys(request: web.Request) -> web.Response:
    return json_response(sorted(request.app[STATE].current_keys()))


async def put_keys(request: web.Request) -> web.Response:
    state = request.app[STATE]
    state.current_keys()  # a file that has changed until now does not undo what is set here
    state.keys = frozenset(await read_as(request, list[str]))
    return json_response(sorted(state.keys))


async def post_faults(request: web.Request) -> web.Response:
    given: Fault | list[Fault] = await read_as(request, Fault | list[Fault])
    state = request.app[STATE]
    state.faults.add(*(given if isinstance(given, list) else [given]))
    return json_response(state.faults.pending())


async def get_faults(request: web.Request) -> web.Response:
    return json_response(request.app[STATE].faults.pending())


async def delete_faults(request: web.Request) -> web.Response:
    request.app[STATE].faults.clear()
    return json_response([])


async def post_rules(request: web.Request) -> web.Response:
    given: Rule | list[Rule] = await read_as(request, Rule | list[Rule])
    state = request.app[STATE]
    state.rules.add(*(given if isinstance(given, list) else [given]))
    return json_response(state.rules.all())


async def get_rules(request: web.Request) -> web.Response:
    return json_response(request.app[STATE].rules.all())


async def delete_rules(request: web.Request) -> web.Response:
    request.app[STATE].rules.clear()
    return json_response([])


async def put_latency(request: web.Request) -> web.Response:
    given: Latency = await read_as(request, Latency)
    state = request.app[STATE]
    state.latency_s, state.event_s = given.ms / 1000, given.event_ms / 1000
    state.hold(given.per_s)
    return json_response(given)


def _limits(state: State) -> web.Response:
    return json_response({"limits": state.limits.limits, "running": state.limits.running, "peak": state.limits.peak})


async def get_limits(request: web.Request) -> web.Response:
    """The limits in force; how many requests to /v1/messages are under way, and the most that were."""
    return _limits(request.app[STATE])


async def put_limits(request: web.Request) -> web.Response:
    """Put limits in force, with full buckets; null takes them off."""
    request.app[STATE].limits.set(await read_as(request, Limits | None))
    return _limits(request.app[STATE])


async def get_log(request: web.Request) -> web.Response:
    after = request.query.get("after", "0")
    if not after.isdecimal():
        raise web.HTTPBadRequest(text="/_control/log: after must be a number\n")
    return json_response({"entries": request.app[STATE].log.entries(int(after))})


async def delete_log(request: web.Request) -> web.Response:
    request.app[STATE].log.clear()
    return json_response({"entries": []})


async def put_federation(request: web.Request) -> web.Response:
    """Set the federation rule; with `?revoke` all tokens so far end."""
    state = request.app[STATE]
    state.federation = await read_as(request, Federation)
    if "revoke" in request.query:
        state.tokens.revoke()
    return json_response(state.federation)


async def post_reset(request: web.Request) -> web.Response:
    request.app[STATE].reset()
    return json_response({})


ROUTES = [
    web.get("/_control/keys", get_keys),
    web.put("/_control/keys", put_keys),
    web.get("/_control/faults", get_faults),
    web.post("/_control/faults", post_faults),
    web.delete("/_control/faults", delete_faults),
    web.get("/_control/rules", get_rules),
    web.post("/_control/rules", post_rules),
    web.delete("/_control/rules", delete_rules),
    web.put("/_control/latency", put_latency),
    web.get("/_control/limits", get_limits),
    web.put("/_control/limits", put_limits),
    web.get("/_control/log", get_log),
    web.delete("/_control/log", delete_log),
    web.put("/_control/federation", put_federation),
    web.post("/_control/reset", post_reset),
]
