"""The worst-case cost of an image in tokens, from the pixel size in its header.

Source: the provider's vision page, read 2026-11-28. An image costs one token per 28 x 28 pixels, partial ones included.
Images beyond a model's native resolution are scaled down first, to 4784 tokens at most. The older rule, width x height
/ 750, and third-party measurements with models of the generation 5.5 give no more.
"""

from __future__ import annotations

import binascii
import struct

_PATCH = 28
#: The maximum cost of an image, also used if the header cannot be read.
MAX_TOKENS = 4784
#: Tokens that frame an image, in addition to its patches.
_FRAME_TOKENS = 16
#: Characters of base64 to decode: a JPEG's size may come after profiles and previews.
_LOOK = 256 * 1024
#: JPEG markers that start a frame (SOF), and those without a segment. Source: ITU-T T.81, table B.1.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})


def image_tokens(data: str) -> int:
    """Return the maximum tokens of the image in the base64 text `data`; MAX_TOKENS if its header cannot be read."""
    try:
        width, height = _size(binascii.a2b_base64(data[:_LOOK], strict_mode=True))
    except (ValueError, struct.error, IndexError):
        return MAX_TOKENS + _FRAME_TOKENS
    patches = -(-width // _PATCH) * -(-height // _PATCH)
    return (min(patches, MAX_TOKENS) or MAX_TOKENS) + _FRAME_TOKENS


def _size(head: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels. Raise ValueError, struct.error or IndexError if `head` does not have them."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        width, height = struct.unpack_from(">II", head, 16)
        return width, height
    for start, size in ((b"\xff\xd8", _jpeg), (b"GIF87a", _gif), (b"GIF89a", _gif), (b"RIFF", _webp)):
        if head.startswith(start):
            return size(head)
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
