"""A tolerant JSON reader: an answer that a strict reader refuses for one character has still been paid for.

A lone half of a surrogate pair (`"\\ud83d"`: text that was cut inside an emoji) and bytes that are not UTF-8 become
U+FFFD. NaN and infinities, which JSON does not have, become null.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

#: A strict reader's errors for invalid JSON, invalid UTF-8 and endless nesting.
REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: Larger texts are only repaired, not read by Python's own reader, which takes too much memory per small object.
_MAX_PYTHON = 1024 * 1024
_MAX_DIGITS = 40
_HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_HIGH = re.compile(_HIGH + rb"(?!" + _LOW + rb")")
#: Once no high half is alone, a low half is alone unless a high half precedes it.
_LONE_LOW = re.compile(rb"(?<!" + _HIGH + rb")" + _LOW)
_SURROGATE = re.compile("[\ud800-\udfff]")
T = TypeVar("T")


def mend(data: bytes) -> bytes:
    """Return `data` with U+FFFD for invalid text. Linear time and at most three copies, for any input."""
    if not data.isascii():
        data = data.decode("utf-8", "replace").encode()
    if b"\\u" not in data:
        return data
    # Replace escaped backslashes by NUL, which valid JSON never contains, so that they cannot be taken for an escape.
    data = data.replace(b"\0", b"").replace(b"\\\\", b"\0")
    data = _LONE_HIGH.sub(rb"\\ufffd", data)
    return _LONE_LOW.sub(rb"\\ufffd", data).replace(b"\0", b"\\\\")


def decode_as(data: bytes, kind: type[T]) -> T:
    """Decode `data` as a `kind`. Raise one of REFUSED if that fails even after repair."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        raise
    except REFUSED:
        return msgspec.json.decode(mend(data), type=kind)


def decode(data: bytes, *, halves: bool = False) -> Any:
    """Decode `data`. Raise ValueError if it is not JSON. With `halves`, lone halves of surrogate pairs are kept."""
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


def decode_halves(data: bytes) -> Any:
    """Decode `data` and keep lone halves of surrogate pairs, since the other half may come with the next piece."""
    return decode(data, halves=True)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def well_formed(text: str) -> str:
    """Return `text` with its surrogate pairs joined, and U+FFFD for each lone half."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") if _SURROGATE.search(text) else text


def clean(value: Any) -> Any:
    """Return `value`, which was decoded with lone halves, without them."""
    match value:
        case str():
            return well_formed(value)
        case list():
            return [clean(one) for one in value]
        case dict():
            return {well_formed(name): clean(one) for name, one in value.items()}
        case _:
            return value
