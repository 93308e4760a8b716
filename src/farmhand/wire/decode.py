"""The only code that decodes what an agent answers.

Data from a farm host is not trusted to be well-formed. `decode` limits size, depth and number of values, replaces lone
surrogates with U+FFFD, and checks type and range of the fields in use. Unknown fields and names of states come from a
newer agent and are left alone.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec

from farmhand.core.typed import ready

#: Limits in bytes on an answer, a small answer, and a ledger line. The text of a result and a page of results are far
#: below the first.
MAX_BYTES = 64 * 1024 * 1024
MAX_SMALL_BYTES = 4 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024
#: Deeper than any answer with a model's own JSON in it, and far below Python's recursion limit.
MAX_DEPTH = 100
#: The most values and names in one answer. The fullest turn has a third of that.
MAX_VALUES = 3_000_000
#: An answer with a lower byte limit also has a lower value limit: `{}` takes 30 times its size in memory.
_BYTES_A_VALUE = 16
#: The integers that fit in 64 bits, the limit of JSON encoders and SQLite.
_INTEGERS = range(-(2**63), 2**64)
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STRUCTURE = (b",", b":", b"[", b"{")


class Misfit(ValueError):
    """An answer that is not of the wire. The message names the problem and its place, without any value."""


def decode(data: bytes, kind: Any, most: int = MAX_BYTES) -> Any:
    """Return the JSON value in `data`, of at most `most` bytes and with the fields of `kind`. Raise Misfit."""
    if len(data) > most:
        raise Misfit(f"is longer than {most} bytes")
    limit = min(MAX_VALUES, most // _BYTES_A_VALUE)
    # An upper bound on values and names; if it is too high, without what only strings contain.
    if sum(map(data.count, _STRUCTURE)) > limit and sum(map(_STRING.sub(b"", data).count, _STRUCTURE)) > limit:
        raise Misfit(f"has more than {limit} values")
    try:
        value = _clean(json.loads(data.decode("utf-8", "replace"), parse_constant=_constant), MAX_DEPTH)
        msgspec.convert(value, ready(kind))
    except RecursionError:
        raise Misfit(f"is nested deeper than {MAX_DEPTH}") from None
    except Misfit:
        raise
    except msgspec.ValidationError as error:
        raise Misfit(str(error)) from None
    except ValueError as error:
        raise Misfit("has a number that is too long" if "digits" in str(error) else "is not JSON") from None
    return value


def _constant(name: str) -> NoReturn:
    raise Misfit(f"has {name} in it, which is not JSON")


def _clean(value: Any, depth: int) -> Any:
    """Return `value` without lone surrogates. Raise Misfit for numbers that are out of range, and for depth."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if kind is int:
        if value not in _INTEGERS:
            raise Misfit("has a number that 64 bits do not hold")
    elif kind is float:
        if value - value != 0:
            raise Misfit("has a number that is out of range")
    elif kind is dict or kind is list:
        if not depth:
            raise Misfit(f"is nested deeper than {MAX_DEPTH}")
        if kind is list:
            return [_clean(item, depth - 1) for item in value]
        return {_clean(name, 0): _clean(item, depth - 1) for name, item in value.items()}
    return value
