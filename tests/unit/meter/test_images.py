from __future__ import annotations

import base64
import struct

import pytest

from farmhand.meter.images import MAX_TOKENS, image_tokens

FRAME = image_tokens("") - MAX_TOKENS


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + b"rest"


def jpeg(width: int, height: int, *, frame: int = 0xC0, before: int = 100) -> bytes:
    segment = b"\xff\xe1" + struct.pack(">H", before + 2) + b"\xff\xc0" * (before // 2)
    return b"\xff\xd8" + segment * 2 + b"\xff\xff" + struct.pack(">BHBHHB", frame, 11, 8, height, width, 1) + b"rest"


def gif(width: int, height: int, *, frame: tuple[int, int] = (1, 1)) -> bytes:
    palette = bytes(6)
    comment = b"\x21\xfe\x03abc\x00"
    return (
        b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + palette + comment
        + b"\x2c" + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"rest"
    )  # fmt: skip


def webp(kind: bytes, width: int, height: int) -> bytes:
    if kind == b"VP8 ":
        body = b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height)
    elif kind == b"VP8L":
        body = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)
    else:
        body = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 100) + b"WEBP" + kind + struct.pack("<I", len(body)) + body + b"rest"


def tokens(data: bytes) -> int:
    return image_tokens(base64.b64encode(data).decode()) - FRAME


# What others measured with models of the generation 5.5; see farmhand.meter.images.
MEASURED = {(256, 256): 100, (512, 512): 361, (1024, 1024): 1369, (1280, 720): 1196, (1920, 1080): 2691}
AT_MOST = {(2560, 1440): 2992, (3840, 2160): 2992, (4032, 3024): 3928}


@pytest.mark.parametrize("size", MEASURED)
@pytest.mark.parametrize(
    "make",
    [
        png,
        jpeg,
        lambda w, h: jpeg(w, h, frame=0xC2, before=60_000),
        gif,
        lambda w, h: webp(b"VP8 ", w, h),
        lambda w, h: webp(b"VP8L", w, h),
        lambda w, h: webp(b"VP8X", w, h),
    ],
    ids=["png", "jpeg", "progressive jpeg with profiles", "gif", "webp", "webp lossless", "webp extended"],
)
def test_an_image_costs_its_patches(make: object, size: tuple[int, int]) -> None:
    assert callable(make)
    assert tokens(make(*size)) == MEASURED[size]


@pytest.mark.parametrize("size", AT_MOST)
def test_a_large_one_is_never_counted_below_what_it_costs(size: tuple[int, int]) -> None:
    assert AT_MOST[size] <= tokens(png(*size)) <= MAX_TOKENS


def test_a_frame_beyond_its_screen_counts() -> None:
    assert tokens(gif(1, 1, frame=(1024, 1024))) == 1369


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"%PDF-1.7",
        png(100, 100)[:20],
        png(0, 100),
        jpeg(100, 0),
        jpeg(100, 100)[:80],
        b"\xff\xd8\xff\xda\x00\x02",
        b"\xff\xd8" + b"\xff" * 1000,
        b"\xff\xd8\xff\xe1\x00\x00" * 9,
        gif(9, 9)[:22],
        webp(b"VP8X", 9, 9)[:26],
        webp(b"ALPH", 9, 9),
        jpeg(100, 100, before=65_000)[:4] + bytes(300_000),
    ],
)
def test_one_that_does_not_tell_costs_the_most(data: bytes) -> None:
    assert tokens(data) == MAX_TOKENS


@pytest.mark.parametrize("text", ["é", "iVBORw0KGgo", "iVBOR\nw0KGgo=", "====", "a" * 1_000_001])
def test_what_is_no_base64_costs_the_most(text: str) -> None:
    assert image_tokens(text) - FRAME == MAX_TOKENS
