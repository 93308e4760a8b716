"""Reading JSON as a peer really writes it: what a strict reader refuses for one character is still a paid answer.

A lone half of a surrogate pair (`"\\ud83d"`: a text that was cut in the middle of an emoji) and bytes that are no UTF-8
become U+FFFD. NaN and infinities, which JSON does not know, are null.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

#: What a strict reader says of bytes that are no JSON, of text that is none, of nesting without end.
REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: Above this only the mended bytes are read: Python's own reader takes too much memory for each small object.
_MAX_PYTHON = 1024 * 1024
_MAX_DIGITS = 40
_HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_HIGH = re.compile(_HIGH + rb"(?!" + _LOW + rb")")
#: Once no high half is alone, a low one is alone unless a high one stands before it.
_LONE_LOW = re.compile(rb"(?<!" + _HIGH + rb")" + _LOW)
_SURROGATE = re.compile("[\ud800-\udfff]")
T = TypeVar("T")


def mend(data: bytes) -> bytes:
    """`data` with U+FFFD for what no text can hold. Linear, and three copies at the most, whatever is in it."""
    if not data.isascii():
        data = data.decode("utf-8", "replace").encode()
    if b"\\u" not in data:
        return data
    # An escaped backslash is none of an escape's own; NUL stands for it, which JSON never holds as it is.
    data = data.replace(b"\0", b"").replace(b"\\\\", b"\0")
    data = _LONE_HIGH.sub(rb"\\ufffd", data)
    return _LONE_LOW.sub(rb"\\ufffd", data).replace(b"\0", b"\\\\")


def decode_as(data: bytes, kind: type[T]) -> T:
    """`data` as a `kind`. Raises one of REFUSED where it is none even when mended."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        raise
    except REFUSED:
        return msgspec.json.decode(mend(data), type=kind)


def decode(data: bytes) -> Any:
    """The value of `data`. ValueError where it is no JSON."""
    return _decode(data, halves=False)


def decode_halves(data: bytes) -> Any:
    """The same with lone halves of surrogate pairs left in: the other half may come with the next piece of a text."""
    return _decode(data, halves=True)


def well_formed(text: str) -> str:
    """`text` with its pairs of surrogates joined, and U+FFFD for each that is alone."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _decode(data: bytes, *, halves: bool) -> Any:
    try:
        return msgspec.json.decode(data)
    except REFUSED:
        pass
    try:
        if len(data) > _MAX_PYTHON:
            return msgspec.json.decode(mend(data))
        text = data.decode("utf-8-sig", "replace")
        value = json.loads(text, strict=False, parse_constant=lambda _name: None, parse_int=_integer)
        return value if halves else clean(value)
    except (*REFUSED, ValueError) as error:
        raise ValueError("not JSON") from error


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def clean(value: Any) -> Any:
    """`value`, as decoded with halves left in, without them."""
    match value:
        case str():
            return well_formed(value)
        case list():
            return [clean(one) for one in value]
        case dict():
            return {well_formed(name): clean(one) for name, one in value.items()}
        case _:
            return value
