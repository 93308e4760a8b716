"""One streamed answer to a client, and the one timer that keeps all of them alive while nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

#: Seconds without a byte to the client after which it gets a ping, and between two looks at the open streams. A client
#: shows a "waiting" banner after about 20 s.
SILENCE_S = 10.0
LOOK_S = 1.0


class ClientStream:
    """An answer of server-sent events to `request`. Its head goes out with the first bytes; `ping` makes a ping."""

    def __init__(self, request: web.BaseRequest, ping: Callable[[], bytes], pings: Pings) -> None:
        self.answer = web.StreamResponse()
        self.answer.content_type = "text/event-stream"
        self.answer.headers["cache-control"] = "no-cache"
        self.answer.enable_chunked_encoding()
        self.begun = False
        self._request = request
        self._ping = ping
        self._pings = pings
        self._loop = asyncio.get_running_loop()
        self._written = 0.0
        self._tail = b""

    async def begin(self) -> None:
        """Make the head final. From now on the client gets pings. Calling it again does nothing."""
        if not self.begun:
            self.begun = True
            await self.answer.prepare(self._request)
            self._written = self._loop.time()
            self._pings.add(self)

    async def write(self, piece: bytes) -> None:
        """Write a part of the body; wait while the client does not read."""
        await self.begin()
        if piece:
            self._written = self._loop.time()
            self._tail = (self._tail + piece[-4:])[-4:]
            await self.answer.write(piece)

    async def end(self) -> web.StreamResponse:
        """End the answer."""
        await self.begin()
        self.close()
        await self.answer.write_eof()
        return self.answer

    def close(self) -> None:
        """Send no more pings."""
        self._pings.remove(self)

    def ping(self, now: float) -> None:
        """Send a ping if the client has heard nothing for too long, stands between two events, and reads.

        The bytes go to the transport as one chunk: there is no task that could wait.
        """
        transport = self._request.transport
        between = not self._tail or self._tail.endswith((b"\n\n", b"\r\n\r\n"))
        if now - self._written < SILENCE_S or not between or transport is None or transport.get_write_buffer_size():
            return
        self._written = now
        if piece := self._ping():
            self._request.writer.send_headers()
            transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))


class Pings:
    """The open streams, and one timer for all of them, which runs only while there are any."""

    def __init__(self) -> None:
        self._open: dict[ClientStream, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open_streams(self) -> int:
        """Return the number of open streams."""
        return len(self._open)

    def add(self, stream: ClientStream) -> None:
        """Look after a stream."""
        self._open[stream] = None
        if self._timer is None:
            self._again()

    def remove(self, stream: ClientStream) -> None:
        """Look after it no longer."""
        self._open.pop(stream, None)

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for stream in self._open:
            stream.ping(now)
        if self._open:
            self._again()
