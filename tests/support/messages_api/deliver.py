"""Sending an answer, plain or streaming, whole or spoilt by a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from tests.support.messages_api import sse
from tests.support.messages_api.errors import ApiError
from tests.support.messages_api.faults import Fault
from tests.support.messages_api.verbatim import deliver_verbatim

#: Lines of results to a write.
_LINES = 100
_GARBAGE = b"<html><head><title>502 Bad Gateway</title></head></html>\n"
_GARBAGE_EVENT = b"event: content_block_delta\ndata: {this is no JSON\n\n"


async def deliver(
    request: web.Request,
    message: dict[str, Any],
    headers: dict[str, str],
    fault: Fault | None,
    *,
    stream: bool,
    pace_s: Callable[[], float],
) -> web.StreamResponse:
    """Send `message`. `pace_s` is the pause before the next event of a stream."""
    if fault is not None and fault.answer is not None:
        return await deliver_verbatim(request, fault.answer, headers)
    if stream:
        return await _stream(request, message, headers, fault, pace_s)
    return await deliver_value(request, msgspec.json.encode(message), headers, fault)


async def deliver_lines(
    request: web.Request, lines: Sequence[bytes], headers: dict[str, str], fault: Fault | None
) -> web.StreamResponse:
    """Send the results of a batch, a line each. A fault comes after its `after_events` lines."""
    response = web.StreamResponse(headers={**headers, "content-type": "application/x-jsonl"})
    await response.prepare(request)
    spoil = fault if fault and fault.kind in ("stalled", "cut", "garbage", "stream_error") else None
    whole = len(lines) if spoil is None else min(spoil.after_events, len(lines))
    for start in range(0, whole, _LINES):
        await response.write(b"".join(lines[start : min(whole, start + _LINES)]))
    if spoil is not None and spoil.kind == "stalled":
        await _silence(spoil)
        await response.write(b"".join(lines[whole:]))
    elif spoil is not None and spoil.kind == "garbage":
        await response.write(_GARBAGE)
    elif spoil is not None:
        await response.write(lines[whole][: len(lines[whole]) // 2] if whole < len(lines) else b"")
        return await drop(request, response)
    await response.write_eof()
    return response


async def deliver_value(
    request: web.Request, body: bytes, headers: dict[str, str], fault: Fault | None
) -> web.StreamResponse:
    """Send `body`, which is JSON."""
    kind = fault.kind if fault else ""
    if kind == "stream_error":
        raise ApiError(529)
    if kind == "garbage":
        body = _GARBAGE
    response = web.StreamResponse(headers={**headers, "content-type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    if fault is not None and kind == "stalled":
        await _silence(fault)
    if kind == "cut":
        await response.write(body[: len(body) // 2])
        return await drop(request, response)
    await response.write(body)
    await response.write_eof()
    return response


async def _stream(
    request: web.Request,
    message: dict[str, Any],
    headers: dict[str, str],
    fault: Fault | None,
    pace_s: Callable[[], float],
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={**headers, "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
    )
    await response.prepare(request)
    spoil = fault if fault and fault.kind in ("stalled", "cut", "garbage", "stream_error") else None
    for count, event in enumerate(sse.events(message)):
        if spoil is not None and count == spoil.after_events:
            if spoil.kind == "cut":
                return await drop(request, response)
            if spoil.kind == "stalled":
                await _silence(spoil)
            else:
                await response.write(_GARBAGE_EVENT if spoil.kind == "garbage" else _overloaded(spoil))
                break
        if count and (pause_s := pace_s()):
            await asyncio.sleep(pause_s)
        await response.write(sse.encode(event))
    await response.write_eof()
    return response


def _overloaded(fault: Fault) -> bytes:
    error = {"type": "overloaded_error", "message": fault.message or "Overloaded"}
    return sse.encode({"type": "error", "error": error})


async def _silence(fault: Fault) -> None:
    if fault.delay_s:
        await asyncio.sleep(fault.delay_s)
    else:
        await asyncio.Event().wait()


async def drop(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Let what was written go out, then drop the connection."""
    await asyncio.sleep(0)
    if request.transport is not None:
        request.transport.close()
    return response
