"""HTTP/1.1 for the wire's client: one connection, one request at a time, answers by length, in chunks or to the end.

Not http.client: that one brings email and ssl with it, which cost every call of claude-cheap 20 ms of its start.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from socket import socket

#: Limits of an answer's head, as http.client has them; of its trailers and of interim answers before it as well.
MAX_LINE = 65536
MAX_HEADERS = 100
MAX_INTERIM = 100
_PIECE = 65536
#: What a line brings at least once patience is used up, and the longest that one answer may take whatever it brings.
SLOWEST_BYTES_PER_S = 16 * 1024
LONGEST_S = 900.0
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")


class HttpError(Exception):
    """The other side does not speak HTTP/1.1, or not as an agent does."""


class CutOff(HttpError):
    """The other side broke off in the middle of an answer."""


class NoAnswer(CutOff):
    """The other side closed the connection before the first byte of an answer."""


class Endless(HttpError):
    """The other side sends, and its answer takes longer than any good one."""


class ByteReader:
    """Bytes from `receive`, which gives some at each call and none at the end; read by line and by number."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._buffer = bytearray()

    def _fill(self) -> bool:
        piece = self._receive(_PIECE)
        self._buffer += piece
        return bool(piece)

    def line(self) -> bytes:
        """The next line without its end; b"" for an empty one. Raises HttpError where it is cut off or too long."""
        start = 0
        while (end := self._buffer.find(b"\n", start)) < 0:
            start = len(self._buffer)
            if start > MAX_LINE:
                raise HttpError("a line of the head is too long")
            if not self._fill():
                raise CutOff("a line of the head is cut off")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    def some(self, most: int) -> bytes:
        """At least one and at most `most` bytes; b"" at the end."""
        if not self._buffer and not self._fill():
            return b""
        piece = bytes(self._buffer[:most])
        del self._buffer[:most]
        return piece

    def has_begun(self) -> bool:
        """Wait for a first byte. False if the other side closes instead."""
        return bool(self._buffer) or self._fill()


class Headers:
    """Header fields by their name in any case; of several with one name the first counts."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def add(self, line: bytes) -> None:
        """Take one line of a head. Raises HttpError."""
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            raise HttpError("a header line has no name")
        self._fields.setdefault(name.lower(), value.strip())

    def get(self, name: str, default: str = "") -> str:
        """The value of a header field."""
        return self._fields.get(name.lower(), default)


class Response:
    """An answer: its head is read at once, its body as it is asked for. Raises HttpError."""

    def __init__(self, source: ByteReader) -> None:
        self._source = source
        self.headers = Headers()
        self.status = self._head()
        self._chunked = "chunked" in self.headers.get("Transfer-Encoding").lower()
        self._left = None if self._chunked else self._length()
        self._first_chunk = True
        self._closed = self._left == 0
        self.will_close = "close" in self.headers.get("Connection").lower() or (
            not self._chunked and self._left is None
        )
        if self._chunked:
            self._left = 0

    def _head(self) -> int:
        for _ in range(MAX_INTERIM + 1):
            if not self._source.has_begun():
                raise NoAnswer("no answer")
            version, _, rest = self._source.line().partition(b" ")
            code = rest[:3]
            if not version.startswith(b"HTTP/1.") or not code.isdigit() or rest[3:4].strip():
                raise HttpError("no status line")
            self.headers = Headers()
            for _ in range(MAX_HEADERS + 1):
                if not (line := self._source.line()):
                    break
                self.headers.add(line)
            else:
                raise HttpError("too many headers")
            if not code.startswith(b"1"):  # an interim answer; the real one follows
                return int(code)
        raise HttpError("too many interim answers")

    def _length(self) -> int | None:
        if self.status in (204, 304):
            return 0
        given = self.headers.get("Content-Length")
        if not given:
            return None
        if _LENGTH.fullmatch(given) is None:
            raise HttpError("no content length")
        return int(given)

    def isclosed(self) -> bool:
        """Whether all of the body has been read."""
        return self._closed

    def read1(self, most: int = _PIECE) -> bytes:
        """Some of the body, as soon as there is some; b"" at its end."""
        if self._closed:
            return b""
        if self._chunked and not self._left and not self._next_chunk():
            self._closed = True
            return b""
        piece = self._source.some(most if self._left is None else min(most, self._left))
        if not piece:
            self._closed = True
            if self._left is not None:
                raise CutOff("the body is cut off")
        elif self._left is not None:
            self._left -= len(piece)
            self._closed = not self._left and not self._chunked
        return piece

    def read(self, most: int) -> bytes:
        """All of the body. Raises HttpError for one of more than `most` bytes."""
        pieces, size = [], 0
        while piece := self.read1():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise HttpError(f"an answer of more than {most} bytes")
        return b"".join(pieces)

    def _next_chunk(self) -> bool:
        """Read the next chunk's size; at the last one what follows it, too. False at the end."""
        if not self._first_chunk and self._source.line():
            raise HttpError("a chunk is longer than it says")
        self._first_chunk = False
        digits = self._source.line().partition(b";")[0].strip()
        if _CHUNK_SIZE.fullmatch(digits) is None:
            raise HttpError("no chunk size")
        self._left = int(digits, 16)
        if not self._left:
            for _ in range(MAX_HEADERS + 1):
                if not self._source.line():
                    break
            else:
                raise HttpError("too many trailers")
        return bool(self._left)


class HttpConnection:
    """One connection over `sock`. An answer is read to its end before the next request is sent."""

    def __init__(self, sock: socket, host: str = "jada-agent") -> None:
        self._sock = sock
        self._host = host
        self._source = ByteReader(self._receive)
        self._silence_s = self._began = self._wait_s = 0.0
        self._came = 0

    def patience(self, silence_s: float, wait_s: float) -> None:
        """From now on `silence_s` may pass without a byte, and `wait_s` until the answer, or the next piece of it, is
        there; longer for what is large, as a slow line brings it.
        """
        self._silence_s, self._wait_s = silence_s, wait_s
        self._began, self._came = time.monotonic(), 0
        self._sock.settimeout(silence_s)

    def _receive(self, most: int) -> bytes:
        if not self._wait_s:
            return self._sock.recv(most)
        whole = min(self._wait_s + self._came / SLOWEST_BYTES_PER_S, LONGEST_S)
        left = self._began + whole - time.monotonic()
        endless = Endless(f"an answer that has not ended after {whole:.0f} s")
        if left <= 0:
            raise endless
        self._sock.settimeout(min(self._silence_s, left))
        try:
            piece = self._sock.recv(most)
        except TimeoutError:
            if left < self._silence_s and self._came:
                raise endless from None
            raise
        self._came += len(piece)
        return piece

    def request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> None:
        """Send a request. Raises ValueError for what would end a line of the head, OSError."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body or b'')}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line end in a header")
        self._sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))

    def getresponse(self) -> Response:
        """The head of the answer. Raises HttpError, OSError."""
        return Response(self._source)
