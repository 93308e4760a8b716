"""The endpoints of the Messages API."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
from aiohttp import web

from tests.support.messages_api import (
    admin_api,
    admin_keys,
    batch_api,
    batch_check,
    catalog,
    control,
    control_batches,
    oauth,
    validate,
)
from tests.support.messages_api.answer import new_id
from tests.support.messages_api.control import STATE
from tests.support.messages_api.deliver import deliver, drop
from tests.support.messages_api.errors import ApiError
from tests.support.messages_api.faults import Fault
from tests.support.messages_api.limits import Limited
from tests.support.messages_api.log import Entry
from tests.support.messages_api.reply import measure, reply, total, uncached
from tests.support.messages_api.state import State

_logger = logging.getLogger(__name__)
ORGANIZATION = "00000000-0000-4000-8000-000000000000"
WORKSPACE = "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ"
_METHODS = {
    "/v1/messages": ("POST",),
    "/v1/messages/count_tokens": ("POST",),
    "/v1/models": ("GET",),
    oauth.PATH: ("POST",),
    **dict.fromkeys(admin_api.PATHS, ("GET",)),
    "/": ("HEAD",),
}
#: A batch's body is kept in the log up to this size: a test that sends many large ones must not fill the memory.
_LOGGED_BATCH = 1024 * 1024


def build(state: State) -> web.Application:
    """The application over `state`."""
    app = web.Application(client_max_size=0)
    app[STATE] = state
    app.add_routes(control.ROUTES)
    app.add_routes(control_batches.ROUTES)
    app.add_routes(admin_api.ROUTES)
    app.router.add_route("*", "/{path:.*}", _handle)
    return app


async def _handle(request: web.Request) -> web.StreamResponse:
    """Log the request, answer it, and turn every refusal into the API's JSON."""
    state = request.app[STATE]
    request_id = new_id("req_011C", 20)
    raw = b""
    too_large = False
    try:
        raw = await _read(request, batch_check.MAX_BYTES if _path(request) == batch_api.PATH else validate.MAX_BYTES)
    except ApiError:
        too_large = True
    most = _LOGGED_BATCH if _path(request) == batch_api.PATH else validate.MAX_BYTES
    entry = state.log.open(request.method, request.path, request.query_string, dict(request.headers), raw, most=most)
    entry.request_id = request_id
    headers = {"request-id": request_id, "anthropic-organization-id": ORGANIZATION}
    headers["anthropic-workspace-id"] = WORKSPACE
    try:
        if too_large:
            raise ApiError(413)
        return await _answer(request, state, entry, raw, headers)
    except ApiError as error:
        entry.status, entry.error = error.status, error.message
        entry.limited = error.name if isinstance(error, Limited) else ""
        body = msgspec.json.encode(error.body(request_id)) if error.raw is None else error.raw.encode()
        response = web.Response(
            status=error.status,
            body=b"" if request.method == "HEAD" else body,
            content_type="application/json" if error.raw is None else "text/html",
            headers={**headers, **error.headers},
        )
        if too_large:
            response.force_close()  # the rest of the body is still on its way
        return response
    except (asyncio.CancelledError, ConnectionError):
        entry.aborted = True
        raise
    except Exception as error:  # a fault of this stand-in must be seen as such, by its user and in its own output
        _logger.exception("%s %s", request.method, request.path)
        entry.status, entry.error = 500, f"bug in the loopback API: {error!r}"
        return web.Response(status=500, text=entry.error + "\n", headers=headers)
    finally:
        state.log.close(entry)


def _path(request: web.Request) -> str:
    return request.path.rstrip("/") or "/"


async def _read(request: web.Request, most: int) -> bytes:
    """The body, refused as soon as it is known to be larger than `most` bytes."""
    if (request.content_length or 0) > most:
        raise ApiError(413)
    parts, size = [], 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > most:
            raise ApiError(413)
        parts.append(part)
    return b"".join(parts)


async def _answer(
    request: web.Request, state: State, entry: Entry, raw: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    path = _path(request)
    allowed = ("GET",) if path.startswith("/v1/models/") else _METHODS.get(path) or batch_api.methods(path)
    allowed = allowed or admin_keys.methods(path)
    if allowed is None:
        raise ApiError(404)
    if request.method not in allowed:
        raise ApiError(405, "Method Not Allowed", headers={"allow": ", ".join(allowed)})
    if path == "/":
        entry.status = 200
        return web.Response(headers=headers)
    if path in admin_api.PATHS:
        answer = admin_api.report(path, request.query, request.headers, state)
        entry.status = 200
        return _json(answer, headers)
    if path == oauth.PATH:
        return await _exchange(request, state, entry, raw, headers)
    if path.startswith(admin_keys.PATH):
        shown = admin_keys.answer(path, request.method, request.query, request.headers, raw, state)
        entry.status = 200
        return _json(shown, headers)
    if path.startswith("/v1/models"):
        fault = state.faults.take(lambda fault: fault.hits(request.method, path, "", raw))
        await _before(state, entry, fault)
        validate.check_headers(request.headers, state.current_keys())
        entry.status = 200
        return _json(_models(path.removeprefix("/v1/models").strip("/")), headers)
    if path.startswith(batch_api.PATH):
        return await _batches(request, state, entry, raw, headers)
    if path.endswith("count_tokens"):
        return await _messages(request, state, entry, raw, headers, counting=True)
    with state.limits.place():
        return await _messages(request, state, entry, raw, headers, counting=False)


async def _exchange(
    request: web.Request, state: State, entry: Entry, raw: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    tokens = state.tokens
    tokens.running += 1
    tokens.peak = max(tokens.peak, tokens.running)
    try:
        fault = state.faults.take(lambda fault: fault.hits(request.method, oauth.PATH, "", raw))
        await _before(state, entry, fault)
        if fault is not None and fault.kind == "reset":
            return await drop(request, web.Response())
        if fault is not None and fault.kind == "garbage":
            entry.status = 200
            return web.Response(text="<html>a gateway</html>", content_type="text/html", headers=headers)
        made = oauth.answer(request.headers, raw, state)
        entry.status = 200
        return _json(made, headers)
    finally:
        tokens.running -= 1


def _json(value: Any, headers: dict[str, str]) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", headers=headers)


def _models(name: str) -> dict[str, Any]:
    def info(model: catalog.Model) -> dict[str, Any]:
        return {
            "type": "model",
            "id": model.id,
            "display_name": model.name,
            "created_at": f"{model.created}T00:00:00Z",
            "lifecycle": model.lifecycle,
            "max_input_tokens": model.context,
            "max_tokens": model.max_tokens,
        }

    if name:
        model = catalog.find(name)
        if model is None:
            raise ApiError(404, f"model: {name}")
        return info(model)
    data = [info(model) for model in catalog.MODELS.values()]
    return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}


async def _batches(
    request: web.Request, state: State, entry: Entry, raw: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    path = _path(request)
    fault = state.faults.take(lambda fault: fault.hits(request.method, path, "", raw))
    await _before(state, entry, fault)
    if fault is not None and fault.kind == "reset":
        return await drop(request, web.Response())
    return await batch_api.Call(request, state, entry, raw, headers, fault).answer(path)


async def _messages(
    request: web.Request, state: State, entry: Entry, raw: bytes, headers: dict[str, str], *, counting: bool
) -> web.StreamResponse:
    body: dict[str, Any] | None = None
    refusal: ApiError | None = None
    try:
        validate.check_content_type(request.headers)
        body = validate.parse(raw)
        entry.model = str(body.get("model", ""))
    except ApiError as error:
        refusal = error
    fault = state.faults.take(lambda fault: fault.hits(request.method, _path(request), entry.model, raw))
    await _before(state, entry, fault)
    if fault is not None and fault.kind == "reset":
        return await drop(request, web.Response())
    validate.check_headers(request.headers, state.current_keys())
    if refusal is not None or body is None:
        raise refusal or ApiError(400)
    checked = validate.check(body, request.headers, counting=counting)
    key = validate.presented_key(request.headers)
    if counting:
        entry.status = 200
        return _json({"input_tokens": total(state.cache.count(checked, key, store=False))}, headers)
    windows = state.windows if key.startswith(validate.OAUTH_TOKEN) else None
    if windows is not None:
        windows.admit()
    free = state.limits.limits is None
    usage = measure(checked, key, state.cache, store=free)
    state.limits.admit(checked.model.id, uncached(usage))
    if not free:  # only now: a request that is refused leaves nothing in the cache
        usage = measure(checked, key, state.cache, store=True)
    message = reply(checked, usage, state.rules)
    state.limits.produced(checked.model.id, message["usage"]["output_tokens"])
    entry.usage = message["usage"]
    entry.status = 200
    headers = {**headers, **state.limits.headers(checked.model.id), **(windows.headers() if windows else {})}
    stream = body.get("stream") is True
    return await deliver(request, message, headers, fault, stream=stream, pace_s=lambda: state.event_s)


async def _before(state: State, entry: Entry, fault: Fault | None) -> None:
    """Latency, holding, and the faults that come before an answer."""
    if wait_s := state.latency_s + state.turn_s():
        await asyncio.sleep(wait_s)
    if fault is None:
        return
    entry.fault = fault.kind if fault.kind != "status" else f"status {fault.status}"
    if fault.kind == "slow":
        await asyncio.sleep(fault.delay_s)
    error = fault.refusal()
    if error is not None:
        if error.status == 429 and error.details is None:
            model = catalog.find(entry.model)
            error.headers.update(state.limits.headers(model.id if model else entry.model))
        raise error
