"""A bound on the number of values in a JSON text, checked on its bytes before decoding.

A decoder creates an object of 56 bytes or more for each value: 32 MB of `{},` become 0.8 GB. The check takes time and
memory in proportion to the text, in a few calls that each are one pass in C.
"""

from __future__ import annotations

_MARKS = (b"{", b"[", b",")


def check_values(text: bytes, most: int) -> None:
    """Raise ValueError if the JSON in `text` has more than `most` objects, lists and further members of them.

    If the text is not valid JSON, this holds for the part up to the error, which is as far as a decoder gets.
    """
    if len(text) <= most or sum(map(text.count, _MARKS)) <= most:
        return
    # Text may be full of commas, so do not count inside strings. A run of backslashes always starts at an escape.
    bare = text.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in text else text
    # Each counted value has at most two strings: a name and a value.
    if bare.count(b'"') <= 4 * (most + 1):
        outside = b"".join(bare.split(b'"')[::2])
        if sum(map(outside.count, _MARKS)) <= most:
            return
    raise ValueError(f"it has more than {most} values")
