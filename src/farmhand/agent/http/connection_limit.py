"""A limit on connections per user to the daemon's sockets, so that no user can take all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from farmhand.core.files import peer


def limited(server: web.Server, per_uid: int) -> Callable[[], asyncio.Protocol]:
    """Return a protocol factory in front of `server` that closes connections of one user beyond `per_uid`."""
    owners: dict[asyncio.Protocol, int] = {}

    class LimitedProtocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Hand the connection over to the server, or close it."""
            assert isinstance(transport, asyncio.Transport)  # noqa: S101  (sockets have no other kind)
            uid = peer(transport.get_extra_info("socket")).uid
            for closed in owners.keys() - set(server.connections):
                del owners[closed]
            if list(owners.values()).count(uid) >= per_uid:
                transport.abort()
                return
            handler = server()
            owners[handler] = uid
            transport.set_protocol(handler)
            handler.connection_made(transport)

    return LimitedProtocol
