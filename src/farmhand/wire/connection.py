"""One HTTP/1.1 connection to an agent over a socket that is open already: http.client, with bounds of time and size.

Imported after ssh was started: http.client brings email and ssl with it, 20 ms of processor time.
"""

from __future__ import annotations

import io
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socket import socket

#: What a line brings at least once patience is used up, and the longest that one answer may take whatever it brings.
SLOWEST_BYTES_PER_S = 16 * 1024
LONGEST_S = 900.0
#: Bytes of all that goes before a body, and of what carries one beside its own: interim answers, chunks, trailers.
_MAX_HEAD = 256 * 1024
_MAX_TRAILERS = 8 * 1024


class Endless(HTTPException):
    """The other side sends, and its answer takes longer than any good one."""


class TooLong(HTTPException):
    """A body is larger than it may be."""


class _Patient(io.RawIOBase):
    """`sock` as http.client wants it; what comes from it comes no longer than patience lasts."""

    def __init__(self, sock: socket) -> None:
        self._sock = sock
        self._silence_s = self._began = self._wait_s = 0.0
        self._came = 0
        self._room = _MAX_HEAD

    def allow(self, room: int) -> None:
        """Let so many bytes come from now on."""
        self._room = room

    def patience(self, silence_s: float, wait_s: float) -> None:
        self._silence_s, self._wait_s = silence_s, wait_s
        self._began, self._came = time.monotonic(), 0
        self._sock.settimeout(silence_s)

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, 65536)

    def close(self) -> None:
        """Every answer closes its reader; the socket is the transport's."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._room <= 0:
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
        self._room -= length
        return length


class AgentResponse(HTTPResponse):
    """An answer: its head is read at once, its body as it is asked for. Raises HTTPException, OSError."""

    def __init__(self, sock: _Patient, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)  # type: ignore[arg-type]
        self._sock = sock

    def begin(self) -> None:
        """Read the head. IncompleteRead where it is cut off: an agent says how long an answer is, or that it closes."""
        super().begin()
        if self.length is None and not self.chunked and "close" not in self.headers.get("Connection", "").lower():
            raise IncompleteRead(b"")
        self._end()

    def allow(self, most: int) -> None:
        """Let a body of `most` bytes come, and what carries it."""
        self._sock.allow(2 * most + _MAX_HEAD)

    def read1(self, n: int = 65536) -> bytes:
        """Some of the body, as soon as there is some; b"" at its end. IncompleteRead where it is cut off."""
        piece = super().read1(n)
        if not piece and self.length:
            raise IncompleteRead(b"", self.length)
        self._end()
        return piece

    def _end(self) -> None:
        """Close at the end of a body of known length, which http.client does one call later, or never."""
        if self.length == 0:
            self.close()

    def _read_and_discard_trailer(self) -> None:
        self._sock.allow(_MAX_TRAILERS)
        super()._read_and_discard_trailer()  # type: ignore[misc]

    def read_all(self, most: int) -> bytes:
        """All of the body. Raises TooLong for one of more than `most` bytes."""
        self.allow(most)
        body = bytearray()
        while piece := self.read1():
            body += piece
            if len(body) > most:
                raise TooLong(f"an answer of more than {most} bytes")
        return bytes(body)


class AgentConnection(HTTPConnection):
    """One connection over `sock`. An answer is read to its end before the next request is sent."""

    response_class = AgentResponse
    auto_open = 0

    def __init__(self, sock: socket) -> None:
        super().__init__("jada-agent")
        self._patient = _Patient(sock)
        self.sock = self._patient

    def patience(self, silence_s: float, wait_s: float) -> None:
        """From now on `silence_s` may pass without a byte, and `wait_s` until the answer, or the next piece of it, is
        there; longer for what is large, as a slow line brings it.
        """
        self._patient.patience(silence_s, wait_s)

    def getresponse(self) -> AgentResponse:
        """The head of the answer. Raises HTTPException, OSError."""
        self._patient.allow(_MAX_HEAD)
        response = super().getresponse()
        assert isinstance(response, AgentResponse)  # noqa: S101  (it is the response_class)
        return response


class _Whole(_Patient):
    """Bytes that have all come already."""

    def __init__(self, raw: bytes) -> None:
        self._raw = io.BytesIO(raw)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._raw.readinto(buffer)


def whole_response(raw: bytes) -> AgentResponse:
    """The answer in `raw`. Raises HTTPException."""
    response = AgentResponse(_Whole(raw))
    response.begin()
    return response
