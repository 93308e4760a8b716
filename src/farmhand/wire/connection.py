"""One HTTP/1.1 connection to an agent over an open socket: http.client, with limits on time and size.

Imported only after ssh was started: http.client imports email and ssl, which take 20 ms of processor time.
"""

from __future__ import annotations

import io
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socket import socket

#: The lowest accepted rate once the wait is over, and the longest time for one answer at any rate.
SLOWEST_BYTES_PER_S = 16 * 1024
LONGEST_S = 900.0
#: Limits in bytes on everything before a body, and on the framing of a body: interim answers, chunks, trailers.
_MAX_HEAD = 256 * 1024
_MAX_TRAILERS = 8 * 1024


class Endless(HTTPException):
    """An answer that is still arriving after the longest time allowed."""


class TooLong(HTTPException):
    """A body that exceeds its size limit."""


class _Patient(io.RawIOBase):
    """A wrapper of `sock` for http.client that limits the time and size of what is read."""

    def __init__(self, sock: socket) -> None:
        self._sock = sock
        self._silence_s = self._began = self._wait_s = 0.0
        self._came = 0
        #: How many more bytes may be read.
        self.room = _MAX_HEAD

    def patience(self, silence_s: float, wait_s: float) -> None:
        self._silence_s, self._wait_s = silence_s, wait_s
        self._began, self._came = time.monotonic(), 0
        self._sock.settimeout(silence_s)

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, 65536)

    def close(self) -> None:
        """Do nothing: http.client closes the reader after every answer, but the socket belongs to the transport."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self.room <= 0:
            raise TooLong("an answer that does not come to its end")
        whole = min(self._wait_s + self._came / SLOWEST_BYTES_PER_S, LONGEST_S)
        left = self._began + whole - time.monotonic()
        endless = Endless(f"an answer that has not ended after {whole:.0f} s")
        if left <= 0:
            raise endless
        self._sock.settimeout(min(self._silence_s, left))
        try:
            length = self._sock.recv_into(buffer)
        except TimeoutError:
            if left < self._silence_s and self._came:
                raise endless from None
            raise
        self._came += length
        self.room -= length
        return length


class AgentResponse(HTTPResponse):
    """An answer whose head is read at once and whose body is read on demand. Raises HTTPException, OSError."""

    def __init__(self, sock: _Patient, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)  # type: ignore[arg-type]
        self._sock = sock

    def begin(self) -> None:
        """Read the head. Raise IncompleteRead if it is cut off: an agent sends a length, or closes the connection."""
        super().begin()
        if self.length is None and not self.chunked and "close" not in self.headers.get("Connection", "").lower():
            raise IncompleteRead(b"")
        self._end()

    def allow(self, most: int) -> None:
        """Allow a body of `most` bytes, and its framing."""
        self._sock.room = 2 * most + _MAX_HEAD

    def read1(self, n: int = 65536) -> bytes:
        """Return the next bytes of the body, b"" at its end. Raise IncompleteRead if it is cut off."""
        piece = super().read1(n)
        if not piece and self.length:
            raise IncompleteRead(b"", self.length)
        self._end()
        return piece

    def _end(self) -> None:
        """Close at the end of a body of known length; http.client does so one call later, or never."""
        if self.length == 0:
            self.close()

    def _read_and_discard_trailer(self) -> None:
        self._sock.room = _MAX_TRAILERS
        super()._read_and_discard_trailer()  # type: ignore[misc]

    def read_all(self, most: int) -> bytes:
        """Return the whole body. Raise TooLong if it has more than `most` bytes."""
        self.allow(most)
        body = bytearray()
        while piece := self.read1():
            body += piece
            if len(body) > most:
                raise TooLong(f"an answer of more than {most} bytes")
        return bytes(body)


class AgentConnection(HTTPConnection):
    """One connection over `sock`. An answer must be read to its end before the next request is sent."""

    response_class = AgentResponse
    auto_open = 0

    def __init__(self, sock: socket) -> None:
        super().__init__("jada-agent")
        self._patient = _Patient(sock)
        self.sock = self._patient

    def patience(self, silence_s: float, wait_s: float) -> None:
        """Set the limits: `silence_s` without a byte, and `wait_s` until the answer or its next piece.

        The second limit grows with the size of the answer, to allow for slow connections.
        """
        self._patient.patience(silence_s, wait_s)

    def getresponse(self) -> AgentResponse:
        """Return the answer with its head read. Raise HTTPException, OSError."""
        self._patient.room = _MAX_HEAD
        response = super().getresponse()
        assert isinstance(response, AgentResponse)  # noqa: S101  (it is the response_class)
        return response


class _Whole(_Patient):
    """A stand-in for the socket with bytes that have all arrived."""

    def __init__(self, raw: bytes) -> None:
        self._raw = io.BytesIO(raw)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._raw.readinto(buffer)


def whole_response(raw: bytes) -> AgentResponse:
    """Return the answer in `raw`. Raise HTTPException."""
    response = AgentResponse(_Whole(raw))
    response.begin()
    return response
