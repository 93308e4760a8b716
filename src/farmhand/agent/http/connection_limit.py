"""The way in to the daemon's sockets: so many connections for each user, so that none can take them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from farmhand.core.files import peer


def limited(server: web.Server, per_uid: int) -> Callable[[], asyncio.Protocol]:
    """A protocol factory in front of `server`: a connection beyond `per_uid` of one user is closed at once."""
    owners: dict[asyncio.Protocol, int] = {}

    class LimitedProtocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Hand the connection over to the server, or end it."""
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
