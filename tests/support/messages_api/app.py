"""The endpoints of the Messages API."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
from aiohttp import web

from tests.support.messages_api import catalog, control, validate
from tests.support.messages_api.answer import compose, new_id
from tests.support.messages_api.control import STATE
from tests.support.messages_api.deliver import deliver, drop
from tests.support.messages_api.errors import ApiError
from tests.support.messages_api.faults import Fault
from tests.support.messages_api.log import Entry
from tests.support.messages_api.state import State

_logger = logging.getLogger(__name__)
ORGANIZATION = "00000000-0000-4000-8000-000000000000"
_METHODS = {
    "/v1/messages": ("POST",),
    "/v1/messages/count_tokens": ("POST",),
    "/v1/models": ("GET",),
    "/": ("HEAD",),
}


def build(state: State) -> web.Application:
    """The application over `state`."""
    app = web.Application(client_max_size=0)
    app[STATE] = state
    app.add_routes(control.ROUTES)
    app.router.add_route("*", "/{path:.*}", _handle)
    return app


async def _handle(request: web.Request) -> web.StreamResponse:
    """Log the request, answer it, and turn every refusal into the API's JSON."""
    state = request.app[STATE]
    request_id = new_id("req_011C", 20)
    raw = b""
    too_large = False
    try:
        raw = await _read(request)
    except ApiError:
        too_large = True
    entry = state.log.open(request.method, request.path, request.query_string, dict(request.headers), raw)
    entry.request_id = request_id
    headers = {"request-id": request_id, "anthropic-organization-id": ORGANIZATION}
    try:
        if too_large:
            raise ApiError(413)
        return await _answer(request, state, entry, raw, headers)
    except ApiError as error:
        entry.status, entry.error = error.status, error.message
        body = b"" if request.method == "HEAD" else msgspec.json.encode(error.body(request_id))
        response = web.Response(
            status=error.status, body=body, content_type="application/json", headers={**headers, **error.headers}
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


async def _read(request: web.Request) -> bytes:
    """The body, refused as soon as it is known to be too large."""
    if (request.content_length or 0) > validate.MAX_BYTES:
        raise ApiError(413)
    parts, size = [], 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > validate.MAX_BYTES:
            raise ApiError(413)
        parts.append(part)
    return b"".join(parts)


async def _answer(
    request: web.Request, state: State, entry: Entry, raw: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    path = request.path.rstrip("/") or "/"
    allowed = ("GET",) if path.startswith("/v1/models/") else _METHODS.get(path)
    if allowed is None:
        raise ApiError(404)
    if request.method not in allowed:
        raise ApiError(405, "Method Not Allowed", headers={"allow": ", ".join(allowed)})
    if path == "/":
        entry.status = 200
        return web.Response(headers=headers)
    if path.startswith("/v1/models"):
        validate.check_headers(request.headers, state.current_keys())
        entry.status = 200
        return _json(_models(path.removeprefix("/v1/models").strip("/")), headers)
    return await _messages(request, state, entry, raw, headers, counting=path.endswith("count_tokens"))


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
    fault = state.faults.take(entry.model, raw)
    await _before(state, entry, fault)
    if fault is not None and fault.kind == "reset":
        return await drop(request, web.Response())
    validate.check_headers(request.headers, state.current_keys())
    if refusal is not None or body is None:
        raise refusal or ApiError(400)
    checked = validate.check(body, request.headers, counting=counting)
    usage = state.cache.count(checked, validate.presented_key(request.headers), store=not counting)
    total = sum(usage[n] for n in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"))
    if counting:
        entry.status = 200
        return _json({"input_tokens": total}, headers)
    if total > checked.model.context:
        raise ApiError(400, f"prompt is too long: {total} tokens > {checked.model.context} maximum")
    message: dict[str, Any] = {
        "id": new_id("msg_01"),
        "type": "message",
        "role": "assistant",
        "model": checked.model.id,
    }
    message |= compose(checked, state.rules)
    message["usage"] = {**usage, **message["usage"], "service_tier": "standard", "inference_geo": "global"}
    entry.usage = message["usage"]
    state.use(usage["input_tokens"] + usage["cache_creation_input_tokens"], message["usage"]["output_tokens"])
    entry.status = 200
    stream = body.get("stream") is True
    return await deliver(
        request, message, {**headers, **state.limit_headers()}, fault, stream=stream, pace_s=state.event_s
    )


async def _before(state: State, entry: Entry, fault: Fault | None) -> None:
    """Latency, and the faults that come before an answer."""
    if state.latency_s:
        await asyncio.sleep(state.latency_s)
    if fault is None:
        return
    entry.fault = fault.kind if fault.kind != "status" else f"status {fault.status}"
    if fault.kind == "slow":
        await asyncio.sleep(fault.delay_s)
    error = fault.refusal()
    if error is not None:
        if error.status == 429 and error.details is None:
            error.headers.update(state.limit_headers())
        raise error
