"""The way in to the daemon's sockets: so many connections for each user, so that none can take them all."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from aiohttp import web

#: struct ucred: pid, uid, gid.
UCRED = struct.Struct("3i")


def peer(connection: socket.socket) -> tuple[int, int]:
    """(uid, gid) of the process that opened a Unix socket's connection. Source: SO_PEERCRED in unix(7)."""
    _, uid, gid = UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return uid, gid


def limited(server: web.Server, per_uid: int) -> Callable[[], asyncio.Protocol]:
    """A protocol factory in front of `server`: a connection beyond `per_uid` of one user is closed at once."""
    owners: dict[asyncio.Protocol, int] = {}

    class LimitedProtocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Hand the connection over to the server, or end it."""
            assert isinstance(transport, asyncio.Transport)  # noqa: S101  (sockets have no other kind)
            uid, _ = peer(transport.get_extra_info("socket"))
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
