"""The way in to the daemon's sockets: so many connections for each user, so that none can take them all."""

from __future__ import annotations

import asyncio

from aiohttp import web

from farmhand.core.files import peer


class ConnectionLimit:
    """A protocol factory in front of `server`: a connection beyond `per_uid` of one user is closed at once."""

    def __init__(self, server: web.Server, per_uid: int) -> None:
        self._server = server
        self._per_uid = per_uid
        self._uids: dict[asyncio.Protocol, int] = {}

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _LimitedProtocol(self)

    def enter(self, transport: asyncio.Transport) -> None:
        """Hand the connection over to the server, or end it."""
        uid = peer(transport.get_extra_info("socket")).uid
        open_now: set[asyncio.Protocol] = set(self._server.connections)
        self._uids = {handler: owner for handler, owner in self._uids.items() if handler in open_now}
        if sum(owner == uid for owner in self._uids.values()) >= self._per_uid:
            transport.abort()
            return
        handler = self._server()
        self._uids[handler] = uid
        transport.set_protocol(handler)
        handler.connection_made(transport)


class _LimitedProtocol(asyncio.Protocol):
    def __init__(self, door: ConnectionLimit) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (sockets have no other kind)
        self._door.enter(transport)
