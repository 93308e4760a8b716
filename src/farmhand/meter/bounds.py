"""How much a JSON text holds, told from its bytes before any of it is decoded.

A decoder makes an object of each value, of 56 bytes or more: 32 MB of `{},` are 0.8 GB. What is here takes time and
memory in proportion to the text alone, in few calls that are each one pass in C.
"""

from __future__ import annotations

_MARKS = (b"{", b"[", b",")


def check_values(text: bytes, most: int) -> None:
    """ValueError where the JSON in `text` has more than `most` objects, lists and further members of them.

    For a text that is no JSON this holds as far as it is JSON, which is as far as a decoder gets.
    """
    if len(text) <= most or sum(map(text.count, _MARKS)) <= most:
        return
    # Text may be full of commas: what stands within strings does not count. Runs of backslashes begin at an escape.
    bare = text.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in text else text
    # Each value that counts brings at most two strings, a name and itself.
    if bare.count(b'"') <= 4 * (most + 1):
        outside = b"".join(bare.split(b'"')[::2])
        if sum(map(outside.count, _MARKS)) <= most:
            return
    raise ValueError(f"it has more than {most} values")
