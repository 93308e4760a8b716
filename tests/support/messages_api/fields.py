"""Small checks of JSON values that raise the API's own messages. A path is dotted: `messages.0.content`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.support.messages_api.errors import bad

Object = dict[str, Any]


def required(obj: Object, path: str, names: Iterable[str]) -> None:
    """Every name must be there."""
    for name in names:
        if name not in obj:
            raise bad(join(path, name), "Field required")


def only(obj: Object, path: str, names: Iterable[str]) -> None:
    """No name but these may be there."""
    known = frozenset(names)
    for name in obj:
        if name not in known:
            raise bad(join(path, name), "Extra inputs are not permitted")


def join(path: str, name: str | int) -> str:
    """`path` and `name` as one dotted path."""
    return f"{path}.{name}" if path else str(name)


def an_object(value: object, path: str) -> Object:
    """`value` as an object."""
    if not isinstance(value, dict):
        raise bad(path, "Input should be a valid dictionary")
    return value


def a_list(value: object, path: str) -> list[Any]:
    """`value` as a list."""
    if not isinstance(value, list):
        raise bad(path, "Input should be a valid array")
    return value


def a_string(value: object, path: str) -> str:
    """`value` as a string."""
    if not isinstance(value, str):
        raise bad(path, "Input should be a valid string")
    return value


def an_integer(value: object, path: str, *, least: int | None = None) -> int:
    """`value` as an integer, not below `least`. JSON's true and false are no integers."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise bad(path, "Input should be a valid integer")
    if least is not None and value < least:
        raise bad(path, f"Input should be greater than or equal to {least}")
    return value


def a_number(value: object, path: str, low: float, high: float) -> float:
    """`value` as a number between `low` and `high`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise bad(path, "Input should be a valid number")
    if value < low:
        raise bad(path, f"Input should be greater than or equal to {low:g}")
    if value > high:
        raise bad(path, f"Input should be less than or equal to {high:g}")
    return float(value)


def a_bool(value: object, path: str) -> bool:
    """`value` as a boolean."""
    if not isinstance(value, bool):
        raise bad(path, "Input should be a valid boolean")
    return value


def one_of(value: object, path: str, choices: Iterable[str]) -> str:
    """`value` as one of the given strings."""
    names = list(choices)
    if value not in names or not isinstance(value, str):
        listed = " or ".join(
            [", ".join(f"'{n}'" for n in names[:-1]), f"'{names[-1]}'"] if len(names) > 1 else [f"'{names[0]}'"]
        )
        raise bad(path, f"Input should be {listed}")
    return value


def tag(obj: Object, path: str, choices: Iterable[str]) -> str:
    """The object's `type`, which must be one of `choices`."""
    names = list(choices)
    expected = ", ".join(f"'{n}'" for n in names)
    if "type" not in obj:
        raise bad(path, "Unable to extract tag using discriminator 'type'")
    if obj["type"] not in names:
        found = obj["type"]
        raise bad(path, f"Input tag '{found}' found using 'type' does not match any of the expected tags: {expected}")
    return str(obj["type"])


def cache_control(obj: Object, path: str) -> None:
    """The optional cache marker of a block or a tool."""
    value = obj.get("cache_control")
    if value is None:
        return
    here = join(path, "cache_control")
    marker = an_object(value, here)
    tag(marker, here, ["ephemeral"])
    only(marker, f"{here}.ephemeral", ("type", "ttl", "scope"))
    if "ttl" in marker:
        one_of(marker["ttl"], f"{here}.ephemeral.ttl", ("5m", "1h"))
