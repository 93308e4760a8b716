"""The wire's schema, as the side sees it that asks: what an agent's answers may hold. The one place that decodes them.

Nothing that a farm host sends is believed to be well-formed. `decode` bounds size, depth and number of values, turns
lone surrogates into U+FFFD, and checks the fields that are used by type and range; fields and names of states that are
not known here are a newer agent's, and left alone. Tables and plain functions: msgspec would cost each start 40 ms, and
a farm host has the standard library only.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False  # as in http1
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    #: Checks a value; raises Misfit, which names where in the value.
    Check = Callable[[Any], None]

#: Bytes: no answer, event or line of a ledger is longer. A result's text and a page of them are far below the first.
MAX_BYTES = 64 * 1024 * 1024
MAX_SMALL_BYTES = 4 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024
#: Deeper than any answer with a model's own JSON in it, and far from what Python's recursion stands.
MAX_DEPTH = 100
#: Values and names in one answer. The fullest turn has a third of it.
MAX_VALUES = 3_000_000
#: An answer that may have few bytes may have few values as well: `{}` takes 30 times its size in memory.
_BYTES_A_VALUE = 16
#: What 64 bits hold, which is what JSON encoders and SQLite take.
_INTEGERS = range(-(2**63), 2**64)
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STRUCTURE = (b",", b":", b"[", b"{")
#: The end of the year 2099, in Unix seconds: what is later is no time, and formatting it fails somewhere.
LATEST = 4_102_444_800
#: US$; what is above is no cost of one task.
MAX_COST_USD = 10_000


class Misfit(ValueError):
    """An answer that is not of the wire. `what` says what is wrong, `where` at which place of it."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(f"{where} {what}" if where else what)
        self.what = what
        self.where = where

    def inside(self, step: str) -> Misfit:
        """The same, seen from a value that holds the wrong one under `step`."""
        between = "." if self.where and not self.where.startswith("[") else ""
        return Misfit(self.what, f"{step}{between}{self.where}")


def decode(data: bytes, check: Check, most: int = MAX_BYTES) -> Any:
    """The JSON value in `data`, which has `most` bytes at most, once it has passed `check`. Raises Misfit."""
    if len(data) > most:
        raise Misfit(f"is longer than {most} bytes")
    limit = min(MAX_VALUES, most // _BYTES_A_VALUE)
    if _values(data, exact=False) > limit and _values(data, exact=True) > limit:
        raise Misfit(f"has more than {limit} values")
    try:
        value = json.loads(data.decode("utf-8", "replace"), parse_constant=_constant)
    except RecursionError:
        raise Misfit(f"is nested deeper than {MAX_DEPTH}") from None
    except Misfit:
        raise
    except ValueError as error:
        raise Misfit("has a number that is too long" if "digits" in str(error) else "is not JSON") from None
    value = _clean(value, MAX_DEPTH)
    check(value)
    return value


def _constant(name: str) -> NoReturn:
    raise Misfit(f"has {name} in it, which is not JSON")


def _values(data: bytes, *, exact: bool) -> int:
    """How many values and names there are in `data`, at most; `exact` does not count what stands in strings."""
    structure = _STRING.sub(b"", data) if exact else data
    return sum(map(structure.count, _STRUCTURE))


def _clean(value: Any, depth: int) -> Any:
    """`value` without lone surrogates. Raises Misfit for numbers that are out of any range, and for depth."""
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


# --- the language of the tables ---------------------------------------------------------------------------------------


def text(most: int = 4096) -> Check:
    """A string of `most` characters at most."""

    def check(value: Any) -> None:
        if type(value) is not str:
            raise Misfit(f"is {_kind(value)}, not a string")
        if len(value) > most:
            raise Misfit(f"is longer than {most} characters")

    return check


def number(low: float, high: float, *, whole: bool = False) -> Check:
    """A number from `low` to `high`; only an integer if `whole`."""
    wanted = "a whole number" if whole else "a number"

    def check(value: Any) -> None:
        if type(value) is not int and (whole or type(value) is not float):
            raise Misfit(f"is {_kind(value)}, not {wanted}")
        if not low <= value <= high:
            raise Misfit(f"is {value:.12g}, not {low:.12g} to {high:.12g}")

    return check


def flag(value: Any) -> None:
    """true or false."""
    if type(value) is not bool:
        raise Misfit(f"is {_kind(value)}, not true or false")


def anything(value: Any) -> None:
    """Any JSON."""


def or_null(check: Check) -> Check:
    """null, or what passes `check`."""

    def checked(value: Any) -> None:
        if value is not None:
            check(value)

    return checked


def items(check: Check, most: int = 20_000) -> Check:
    """A list of `most` values at most that all pass `check`."""

    def checked(value: Any) -> None:
        if type(value) is not list:
            raise Misfit(f"is {_kind(value)}, not a list")
        if len(value) > most:
            raise Misfit(f"has more than {most} entries")
        for at, item in enumerate(value):
            _at(f"[{at}]", check, item)

    return checked


def table(check: Check, most: int = 1000) -> Check:
    """An object of `most` names at most whose values all pass `check`."""

    def checked(value: Any) -> None:
        if type(value) is not dict:
            raise Misfit(f"is {_kind(value)}, not an object")
        if len(value) > most:
            raise Misfit(f"has more than {most} names")
        for name, item in value.items():
            _at(f"{name:.40}", check, item)

    return checked


def record(needed: dict[str, Check], *maybe: dict[str, Check]) -> Check:
    """An object with the fields `needed`, and perhaps those of `maybe`."""
    known = {name: check for fields in (needed, *maybe) for name, check in fields.items()}

    def checked(value: Any) -> None:
        if type(value) is not dict:
            raise Misfit(f"is {_kind(value)}, not an object")
        for name in needed:
            if name not in value:
                raise Misfit(f"has no {name!r}")
        for name, check in known.items():
            if name in value:
                _at(name, check, value[name])

    return checked


def _at(step: str, check: Check, value: Any) -> None:
    try:
        check(value)
    except Misfit as misfit:
        raise misfit.inside(step) from None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return kinds.get(type(value), "an object")


# --- the tables -------------------------------------------------------------------------------------------------------

COUNT = number(0, 2**53, whole=True)
SECONDS = number(0, 1e10)
MOMENT = number(0, LATEST)
NAME = text(256)
LINE = text(64 * 1024)
USD = number(0, 1e9)

ERROR = record({"code": NAME, "message": LINE}, {"hint": LINE})
ERROR_ANSWER = record({"error": ERROR})
WAIT = record({"reason": NAME}, {"tasks": COUNT, "until": or_null(MOMENT), "detail": LINE})
SLOTS = table(record({"total": COUNT, "free": number(-(2**53), 2**53, whole=True)}))
USAGE = table(or_null(COUNT))
RESULT_FIELDS: dict[str, Check] = {
    "id": NAME,
    "state": NAME,
    "text": or_null(text(MAX_BYTES)),
    "model": or_null(NAME),
    "engine": or_null(NAME),
    "usage": or_null(USAGE),
    "cost_usd": or_null(number(0, MAX_COST_USD)),
    "attempts": COUNT,
    "retries": COUNT,
    "uncertain": number(0, 1_000_000, whole=True),
    "queued_s": SECONDS,
    "run_s": SECONDS,
    "stop_reason": or_null(NAME),
    "error": or_null(ERROR),
    "batch": or_null(NAME),
    "labels": or_null(table(LINE)),
    "done_no": COUNT,
}
RESULT = record({}, RESULT_FIELDS)
STATUS = record(
    {},
    {
        "version": NAME,
        "state": NAME,
        "drain": NAME,
        "uptime_s": SECONDS,
        "time": MOMENT,
        "upstream": text(),
        "cli": or_null(NAME),
        "key": or_null(NAME),
        **dict.fromkeys(("running", "queued", "awaiting_key"), COUNT),
        "finished": table(COUNT),
        "slots": or_null(SLOTS),
        "throughput": or_null(record({}, {"per_s": or_null(number(0, 1e9))})),
        "waiting": or_null(items(WAIT, 1000)),
        "keys": or_null(
            items(
                record({"fingerprint": NAME, "state": NAME}, {"reason": LINE, "running": COUNT, "queued": COUNT}), 1000
            )
        ),
        "budget_day": or_null(record({"limit_usd": USD, "spent_usd": USD}, {"reserved_usd": USD, "day": NAME})),
        "ledger": or_null(record({}, {"id": NAME, "tasks": COUNT, "bytes": COUNT})),
    },
)
STATES = record({"tasks": items(record({"id": NAME, "state": NAME}))})
TASK = record({"task": RESULT})
TASKS = record({"tasks": items(record({"id": NAME}, RESULT_FIELDS))}, {"next": or_null(NAME)})
RESULTS = record(
    {"results": items(RESULT)}, {"next": COUNT, "unfinished": COUNT, "waiting": or_null(items(WAIT, 1000))}
)
BATCH = record({"batch": record({})})
KEY = record({}, {"fingerprint": NAME, "tasks_resumed": COUNT, "forgotten": flag})
USAGE_TOTALS = record({})
EVENT = record({}, {"type": NAME, "state": NAME, "text": text(MAX_BYTES), "result": RESULT})
#: What `jada-agent task` prints: see farmhand.wire.task_call.
TASK_ANSWER = record({}, {"changed": flag, **RESULT_FIELDS})
#: What `jada-agent turn` prints: see farmhand.wire.turn.
TURN = record(
    {},
    {
        **dict.fromkeys(("taken", "cancelled", "stopped"), or_null(items(NAME))),
        "refused": or_null(items(record({"id": NAME}, {"code": NAME, "message": LINE, "hint": LINE}))),
        "results": or_null(items(record({"id": NAME, "state": NAME}, RESULT_FIELDS))),
        "next": COUNT,
        "unfinished": COUNT,
        "waiting": or_null(items(WAIT, 1000)),
        "slots": or_null(SLOTS),
        "rest": flag,
        "halted": or_null(ERROR),
        "error": or_null(ERROR),
    },
)
