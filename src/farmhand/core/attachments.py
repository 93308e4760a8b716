"""Pictures and PDFs beside a prompt: told by their content, never by their name, and held to the API's limits.

Source of the limits: the provider's vision and PDF pages, read 2026-11-28. The 5 MB of a picture are those of its
base64, which many a client learned from the refusal (`image exceeds 5 MB maximum: 6275800 bytes > 5242880 bytes`).
"""

from __future__ import annotations

import binascii
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farmhand.core.task import Attachment

PDF = "application/pdf"
#: Media type → what a file of it begins with. WebP has its name after the length.
MAGIC = (
    ("image/png", b"\x89PNG\r\n\x1a\n"),
    ("image/jpeg", b"\xff\xd8\xff"),
    ("image/gif", b"GIF87a"),
    ("image/gif", b"GIF89a"),
    (PDF, b"%PDF-"),
)
MEDIA_TYPES = frozenset({PDF, "image/webp", *(kind for kind, _ in MAGIC)})
KINDS = "PNG, JPEG, GIF, WebP or PDF"
HINT = "make it smaller, or split it"
#: Characters of base64 of one picture, and of all files of a task with its history: below the API's 32 MB a request.
MAX_IMAGE = 5 * 1024**2
MAX_TOTAL = 30 * 1024**2
#: The same for a task of the engine cli, whose requests pass the meter's socket.
MAX_TOTAL_CLI = 10 * 1024**2
MAX_FILES = 100
MAX_PAGES = 100
#: Pixels of a side: of a picture, and of each when a request has more than MANY.
MAX_SIDE, MAX_SIDE_OF_MANY, MANY = 8000, 2000, 20
#: Characters of base64 to look at: a JPEG's size may come after profiles and previews.
_LOOK = 256 * 1024
#: JPEG markers that start a frame (SOF), and those without a segment. Source: ITU-T T.81, table B.1.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_COUNT = re.compile(
    rb"/Type\s*/Pages\b[^<>]{0,65536}?/Count\s+(\d{1,9})\b|/Count\s+(\d{1,9})\b[^<>]{0,65536}?/Type\s*/Pages\b"
)
_PACKED = re.compile(rb"/ObjStm\b[^\n]{0,400}?>>\s*stream\r?\n", re.DOTALL)
#: The most that the packed objects of a PDF may unpack to, for the count of its pages.
_MAX_UNPACKED = 64 * 1024**2


def media_type(head: bytes) -> str:
    """Return the media type of a file that begins with `head`, "" if it is none that the API takes."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for kind, start in MAGIC if head.startswith(start)), "")


def head(data: str) -> bytes:
    """Return the first bytes of the base64 text `data`. Raise ValueError."""
    return binascii.a2b_base64(data[:_LOOK], strict_mode=True)


def problem(files: Sequence[Attachment], *, history: int = 0, most: int = MAX_TOTAL, deep: bool = True) -> str:
    """Return why these files cannot be sent in one request, "" if they can. `history` is the size of its other text.

    Without `deep`, what takes time is left to the API: whether all of a file is base64, and a PDF's pages.
    """
    many = sum(file.media_type != PDF for file in files) > MANY
    for number, file in enumerate(files, 1):
        if what := _problem(file, MAX_SIDE_OF_MANY if many else MAX_SIDE, deep=deep):
            return f"{file.name or f'file {number}'} {what}"
    if len(files) > MAX_FILES:
        return f"there are {len(files)} pictures and PDFs, the limit is {MAX_FILES}"
    total = history + sum(len(file.data) for file in files)
    if total > most:
        return f"pictures, PDFs and history have {total} bytes as they are sent, the limit is {most}"
    return ""


def _problem(file: Attachment, side: int, *, deep: bool) -> str:
    try:
        start = head(file.data)
        data = binascii.a2b_base64(file.data, strict_mode=True) if deep else b""
    except ValueError:
        return "is not base64"
    found = media_type(start)
    if not found or found != file.media_type:
        return f"is not {file.media_type[:80]!r} by its content" if found else f"is no {KINDS}"
    if found == PDF:
        count = pages(data) if deep else None
        return f"has {count} pages, the limit is {MAX_PAGES}" if count and count > MAX_PAGES else ""
    if len(file.data) > MAX_IMAGE:
        return f"has {len(file.data)} bytes as base64, the limit of a picture is {MAX_IMAGE}"
    try:
        width, height = size(start)
    except (ValueError, struct.error, IndexError):
        return "has no readable size: it is cut off or damaged"
    if not 0 < max(width, height) <= side:
        return f"has {width} x {height} pixels, the limit of a side is {side}"
    return ""


def pages(data: bytes) -> int | None:
    """Return the pages of a PDF as its page tree has them; None if that is not found: then only the API knows."""
    counts = [int(a or b) for text in _objects(data) for a, b in _COUNT.findall(text)]
    return max(counts, default=None)


def _objects(data: bytes) -> Iterator[bytes]:
    """Yield the text of a PDF that may have its page tree: itself, and what its object streams unpack to."""
    yield data
    left = _MAX_UNPACKED
    for match in _PACKED.finditer(data):
        try:
            text = zlib.decompressobj().decompress(data[match.end() : match.end() + left], left)
        except zlib.error:
            continue
        left -= len(text)
        yield text
        if left <= 0:
            return


def size(head: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels. Raise ValueError, struct.error or IndexError if `head` does not have them."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        width, height = struct.unpack_from(">II", head, 16)
        return width, height
    for start, reader in ((b"\xff\xd8", _jpeg), (b"GIF87a", _gif), (b"GIF89a", _gif), (b"RIFF", _webp)):
        if head.startswith(start):
            return reader(head)
    raise ValueError("no image that the API takes")


def _jpeg(head: bytes) -> tuple[int, int]:
    at = 2
    while True:
        if head[at] != 0xFF:
            raise ValueError("no marker")
        marker = head[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        if marker in {0xD9, 0xDA}:
            raise ValueError("no frame before the picture")
        if marker == 0xFF:
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", head, at + 2)
            at += 2 + max(length, 2)


def _gif(head: bytes) -> tuple[int, int]:
    """Return the size of the screen, extended by a first frame that is larger."""
    width, height, flags = struct.unpack_from("<HHB", head, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while head[at] == 0x21:
        at += 2
        while head[at]:
            at += head[at] + 1
        at += 1
    if head[at] != 0x2C:
        raise ValueError("no frame")
    left, top, across, down = struct.unpack_from("<HHHH", head, at + 1)
    return max(width, left + across), max(height, top + down)


def _webp(head: bytes) -> tuple[int, int]:
    kind = head[8:16].removeprefix(b"WEBP")
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and head[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        across, down = struct.unpack_from("3s3s", head, 24)
        return int.from_bytes(across, "little") + 1, int.from_bytes(down, "little") + 1
    raise ValueError("no picture")
