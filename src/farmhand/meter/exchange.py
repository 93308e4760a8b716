"""An API answer while it is read: its head, and its body in pieces as they arrive."""

from __future__ import annotations

import asyncio
import zlib
from contextlib import suppress

from farmhand.meter.errors import ApiError, connection_problem
from farmhand.meter.upstream import UpstreamConnection, UpstreamError
from farmhand.meter.usage import UsageParser

#: How long (seconds) and how much to read after an answer's end, so that its connection can be reused.
_BEHIND_S = 1.0
_MAX_BEHIND = 64 * 1024
#: Seconds to wait for the end of a stream that has sent its stop reason.
_STOP_S = 10.0
#: Encodings that can be decoded. The meter requests none, but some proxies ignore that.
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_PLAIN = frozenset({"", "identity"})
_GZIP = b"\x1f\x8b"
_AUTO = zlib.MAX_WBITS | 32
#: Maximum bytes to decompress at once.
_MAX_PIECE = 1024 * 1024


class Exchange:
    """An open answer: its status, its headers, and its body in pieces as they arrive."""

    def __init__(self, answer: UpstreamConnection, watch: UsageParser) -> None:
        """Raise ApiError for an encoding that cannot be decoded."""
        self._answer = answer
        self._watch = watch
        self.status = answer.status
        self.headers = answer.headers
        encoding = answer.headers.get("content-encoding", "").strip().lower()
        if encoding not in _PACKED | _PLAIN:
            what = f"the API's answer has the content-encoding {encoding[:20]!r}, which was not asked for"
            raise ApiError("api_error", what)
        self._unpack = zlib.decompressobj(_AUTO) if encoding in _PACKED else None
        self._first = True
        self._over = False

    @property
    def streamed(self) -> bool:
        """Return whether the body is an event stream: by its content, or by its content type before any arrived."""
        return self._watch.streamed

    async def piece(self) -> bytes:
        """Return the next piece of the body, unbuffered; b"" at its end. Raise ApiError if it was cut or fell silent.

        A complete answer has ended, and so has a stream that sent its stop reason and nothing more. Data or errors
        after that are not reported.
        """
        if self._over:
            return b""
        if self._watch.ended:
            self._over = True
            await self._behind()
            return b""
        try:
            # A timeout is expensive compared to a piece: use one only if the stream may have reached its end.
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
        """Return the next piece, decompressed if necessary."""
        while True:
            piece = self._unpack.unconsumed_tail if self._unpack else b""
            if not piece:
                piece = await self._answer.piece()
                if self._first and piece:
                    self._first = False
                    if piece.startswith(_GZIP):
                        self._unpack = zlib.decompressobj(_AUTO)
            if self._unpack is None:
                return piece
            if not piece and not self._unpack.eof:
                raise UpstreamError("the packed answer is not complete")
            if not piece:
                return b""
            try:
                unpacked = self._unpack.decompress(piece, _MAX_PIECE)
            except zlib.error:
                raise UpstreamError("the packed answer is damaged") from None
            if unpacked:
                return unpacked

    async def _behind(self) -> None:
        """Read a little beyond the answer's end. Ignore the rest, and errors in it."""
        if self._answer.read_out:
            return
        left = _MAX_BEHIND
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(_BEHIND_S):
                while left > 0 and (piece := await self._answer.piece()):
                    left -= len(piece)
