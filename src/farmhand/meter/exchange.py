"""One answer of the API while it is read: its head, and its body in pieces as they come."""

from __future__ import annotations

import asyncio
import zlib

from farmhand.meter.errors import ApiError, connection_problem
from farmhand.meter.upstream import UpstreamConnection, UpstreamError
from farmhand.meter.usage import UsageParser

#: How long, in seconds, and how much is read behind the end of an answer, so that its connection can be used again.
_BEHIND_S = 1.0
_MAX_BEHIND = 64 * 1024
#: How long, in seconds, the end is waited for of a stream that has said why it stops.
_STOP_S = 10.0
#: Encodings that can be undone; the meter asks for none, and some proxies do not listen.
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_PLAIN = frozenset({"", "identity"})
_GZIP = b"\x1f\x8b"
_AUTO = zlib.MAX_WBITS | 32
#: Bytes that one piece is unpacked to at once.
_MAX_PIECE = 1024 * 1024


class Exchange:
    """One answer, open: its status, its headers, and its body in pieces as they come."""

    def __init__(self, answer: UpstreamConnection, watch: UsageParser) -> None:
        self._answer = answer
        self._watch = watch
        self.status = answer.status
        self.headers = answer.headers
        self._encoding = answer.headers.get("content-encoding", "").strip().lower()
        self._unpack = zlib.decompressobj(_AUTO) if self._encoding in _PACKED else None
        self._first = True
        self._over = False

    @property
    def streamed(self) -> bool:
        """Whether it is a stream of events. From the first piece on by what it is, before that by what it is called."""
        return self._watch.streamed

    @property
    def ended(self) -> bool:
        """Whether the pieces until now are a whole answer."""
        return self._watch.ended

    async def piece(self) -> bytes:
        """The next piece of the body, unbuffered; nothing at its end. ApiError: it was cut, or fell silent.

        An answer that is whole has ended, as has a stream that said why it stops and brings no more: nothing that comes
        behind it, or fails to come, is told.
        """
        if self._over:
            return b""
        if self._watch.ended:
            self._over = True
            await self._behind()
            return b""
        try:
            # A timeout costs more than a piece: only what may have come to its end has one.
            if self._watch.stop_reason:
                async with asyncio.timeout(_STOP_S):
                    piece = await self._next()
            else:
                piece = await self._next()
        except (UpstreamError, TimeoutError) as error:
            self._watch.close()
            if not self._watch.ended:
                raise connection_problem(error, "while the answer was under way") from None
            piece = b""
        if piece:
            self._watch.feed(piece)
        else:
            self._over = True
            self._watch.close()
        return piece

    async def _next(self) -> bytes:
        """The next piece as the API meant it."""
        if self._encoding not in _PLAIN and self._unpack is None:
            what = f"the API's answer has the content-encoding {self._encoding[:20]!r}, which was not asked for"
            raise ApiError("api_error", what)
        while not (self._unpack and self._unpack.unconsumed_tail):
            piece = await self._answer.piece()
            if self._first and piece:
                self._first = False
                if self._unpack is None and piece.startswith(_GZIP):
                    self._unpack = zlib.decompressobj(_AUTO)
            if self._unpack is None:
                return piece
            if not piece:
                if not self._unpack.eof:
                    raise UpstreamError("the packed answer is not complete")
                return b""
            if piece := self._unpacked(self._unpack, piece):
                return piece
        return self._unpacked(self._unpack, self._unpack.unconsumed_tail)

    @staticmethod
    def _unpacked(unpack: zlib._Decompress, piece: bytes) -> bytes:
        try:
            return unpack.decompress(piece, _MAX_PIECE)
        except zlib.error:
            raise UpstreamError("the packed answer is damaged") from None

    async def _behind(self) -> None:
        """Read what little comes behind the end; the rest, and what goes wrong there, harms nobody."""
        if self._answer.read_out:
            return
        left = _MAX_BEHIND
        try:
            async with asyncio.timeout(_BEHIND_S):
                while left > 0 and (piece := await self._answer.piece()):
                    left -= len(piece)
        except (UpstreamError, TimeoutError):
            pass
