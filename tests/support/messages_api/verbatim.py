"""An answer sent byte for byte as it is given, for what the API or a proxy before it has been seen to send."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec
from aiohttp import web

#: How the body ends: with its length told before, with the last chunk, with the connection, in the middle of the
#: chunks, or not at all until the client goes.
Ending = Literal["length", "chunked", "close", "cut", "hang"]
_POLL_S = 0.02


class Verbatim(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Status, headers and body of an answer; `piece` bytes go out at once, 0 for all."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = {}
    ending: Ending = "chunked"
    piece: int = 0


async def deliver_verbatim(request: web.Request, answer: Verbatim, headers: dict[str, str]) -> web.StreamResponse:
    """Write the answer past the HTTP library, which would mend it, and close the connection. `headers` go with it."""
    transport = request.transport
    assert transport is not None
    framing = {
        "length": {"content-length": str(len(answer.body))},
        "close": {},
    }.get(answer.ending, {"transfer-encoding": "chunked"})
    lines = [f"HTTP/1.1 {answer.status} As Given"]
    lines += [f"{name}: {value}" for name, value in (headers | answer.headers | framing).items()]
    transport.write(("\r\n".join([*lines, "connection: close"]) + "\r\n\r\n").encode("latin-1"))
    size = answer.piece or max(1, len(answer.body))
    for start in range(0, len(answer.body), size):
        piece = answer.body[start : start + size]
        chunked = "transfer-encoding" in framing
        transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await asyncio.sleep(0)
    if answer.ending == "chunked":
        transport.write(b"0\r\n\r\n")
    if answer.ending == "hang":
        while not transport.is_closing():  # noqa: ASYNC110  (nobody tells when a client has gone)
            await asyncio.sleep(_POLL_S)
    transport.close()
    return web.Response()
