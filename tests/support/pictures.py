"""The smallest files of each kind that a task may carry, with the size or the pages that a test wants."""

from __future__ import annotations

import struct
import zlib


def png(width: int, height: int) -> bytes:
    """A PNG's signature and header."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + bytes(16)


def jpeg(width: int, height: int) -> bytes:
    """A JPEG's start and its frame."""
    return b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + bytes(6)


def webp(width: int, height: int) -> bytes:
    """A lossy WebP's header."""
    return b"RIFF\x00\x00\x00\x00WEBPVP8 \x00\x00\x00\x00\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height)


def pdf(pages: int) -> bytes:
    """A PDF's page tree."""
    kids = b"".join(b"%d 0 obj\n<< /Type /Page /Parent 2 0 R >>\nendobj\n" % (3 + n) for n in range(pages))
    return (
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n2 0 obj\n<< /Type /Pages /Count " + b"%d >>\nendobj\n" % pages + kids + b"%%EOF"
    )


def cow() -> bytes:
    """A whole PNG of 4 x 4 grey pixels, for what decodes it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\x00\x80\x80\x80\x80" * 4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
