"""The smallest JSON value that a JSON Schema allows."""

from __future__ import annotations

import re
import re._parser as sre  # type: ignore[import-not-found]  # typeshed has no stubs for the parser of `re`
from typing import Any

from farmhand.core.schemas import Pool, Unchecked

_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "email": "a@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}


#: The product's own checks: in processes that can be killed, since nothing in a process stops a pattern's search.
_POOL = Pool(limit_s=2.0)
#: Longer strings and lists are not made up.
MOST = 10_000


class NoInstanceError(ValueError):
    """No value was found for the schema."""


def smallest(schema: dict[str, Any]) -> Any:
    """A small value that satisfies `schema`; raises NoInstanceError where none is found."""
    try:
        value = _make(schema, schema, 0)
    except NoInstanceError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError, re.error) as error:
        # A schema may be valid and still ask for the impossible: a dangling $ref, a pattern of another dialect.
        raise NoInstanceError(f"{type(error).__name__}: {error}") from error
    _check(schema, value)
    return value


def _check(schema: dict[str, Any], value: Any) -> None:
    """Raise NoInstanceError unless the value fits, for a pattern that takes too long to be tried as well."""
    try:
        said = _POOL.check(schema, answer=value)
    except Unchecked as unchecked:
        raise NoInstanceError(unchecked.message) from None
    if said.code:
        raise NoInstanceError(said.message)


def _make(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if schema is True or schema == {}:
        return "text"
    if schema is False or depth > 50:
        raise NoInstanceError("nothing fits this part of the schema")
    schema = _resolved(schema, root)
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("examples"):
        return schema["examples"][0]
    for word in ("anyOf", "oneOf"):
        if word in schema:
            rest = {k: v for k, v in schema.items() if k != word}
            return _first_that_fits([_merged(rest, option, root) for option in schema[word]], root, depth)
    return _typed(schema, root, depth)


def _first_that_fits(options: list[dict[str, Any]], root: dict[str, Any], depth: int) -> Any:
    for option in options:
        try:
            return _make(option, root, depth + 1)
        except NoInstanceError:
            continue
    raise NoInstanceError("no alternative fits")


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Follow `$ref` and fold `allOf` in."""
    for _ in range(50):
        if "$ref" in schema:
            target: Any = root
            for part in schema["$ref"].lstrip("#").strip("/").split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")] if part else target
            schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
        elif "allOf" in schema:
            parts = schema["allOf"]
            schema = {k: v for k, v in schema.items() if k != "allOf"}
            for part in parts:
                schema = _merged(schema, part, root)
        else:
            return schema
    raise NoInstanceError("the schema refers to itself")


def _merged(one: dict[str, Any], two: Any, root: dict[str, Any]) -> dict[str, Any]:
    if two is True:
        return one
    if two is False:
        raise NoInstanceError("nothing fits this part of the schema")
    two = _resolved(two, root)
    both = {**one, **two}
    if "properties" in one and "properties" in two:
        both["properties"] = {**one["properties"], **two["properties"]}
    if "required" in one and "required" in two:
        both["required"] = list(dict.fromkeys([*one["required"], *two["required"]]))
    return both


def _typed(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    kind = schema.get("type") or _guess(schema)
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind == "object":
        return _object(schema, root, depth)
    if kind == "array":
        return _array(schema, root, depth)
    if kind == "string":
        return _string(schema)
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    return {"boolean": True, "null": None}[kind]


def _guess(schema: dict[str, Any]) -> str:
    if any(word in schema for word in ("properties", "required", "minProperties")):
        return "object"
    if any(word in schema for word in ("items", "prefixItems", "minItems")):
        return "array"
    if any(word in schema for word in ("minimum", "maximum", "multipleOf", "exclusiveMinimum")):
        return "number"
    return "string"


def _object(schema: dict[str, Any], root: dict[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    names = list(schema.get("required", []))
    for name in properties:
        if len(names) < schema.get("minProperties", 0) and name not in names:
            names.append(name)
    extra = schema.get("additionalProperties", True)
    value = {name: _make(properties.get(name, extra), root, depth + 1) for name in names}
    while len(value) < schema.get("minProperties", 0):
        value[f"key{len(value)}"] = _make(extra, root, depth + 1)
    return value


def _array(schema: dict[str, Any], root: dict[str, Any], depth: int) -> list[Any]:
    first = schema.get("prefixItems", [])
    if schema.get("minItems", 0) > MOST:
        raise NoInstanceError(f"a list of {schema['minItems']} items is too long to make up")
    items = schema.get("items", True)
    value = [_make(part, root, depth + 1) for part in first[: schema.get("maxItems", len(first))]]
    while len(value) < schema.get("minItems", 0):
        value.append(_make(items, root, depth + 1))
    if "contains" in schema and not value:
        value.append(_make(schema["contains"], root, depth + 1))
    if schema.get("uniqueItems"):
        value = _distinct(value, items)
    return value


def _distinct(value: list[Any], items: Any) -> list[Any]:
    choices = list(items.get("enum", [])) if isinstance(items, dict) else []
    out: list[Any] = []
    for i, item in enumerate(value):
        if item in out and choices:
            item = next((c for c in choices if c not in out), item)
        elif item in out and isinstance(item, str):
            item = f"{item}{i}"
        elif item in out and isinstance(item, int):
            item = item + i
        out.append(item)
    return out


def _string(schema: dict[str, Any]) -> str:
    if "pattern" in schema:
        value = _match(list(sre.parse(schema["pattern"])))
        _check({"pattern": schema["pattern"]}, value)
    else:
        value = _FORMATS.get(schema.get("format", ""), "text")
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if least > MOST:
        raise NoInstanceError(f"a string of {least} characters is too long to make up")
    if len(value) < least:
        value += (value[-1:] or "x") * (least - len(value))
    return value[:most] if most is not None else value


def _number(schema: dict[str, Any], *, whole: bool) -> float:
    step = schema.get("multipleOf", 1 if whole else None)
    low: Any = schema.get("minimum")
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + (step or 0.5)
    high: Any = schema.get("maximum")
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - (step or 0.5)
    value: Any = 0 if (low is None or low <= 0) and (high is None or high >= 0) else (low if low is not None else high)
    if step and value % step:
        value = (value // step + 1) * step if low is not None else (value // step) * step
    return int(value) if whole else float(value)


def _match(parsed: list[Any]) -> str:
    """A short string that the parsed regular expression matches. Look-arounds are ignored; the caller checks."""
    out = ""
    for op, arg in parsed:
        name = str(op)
        if name == "LITERAL":
            out += chr(arg)
        elif name == "NOT_LITERAL":
            out += "a" if arg != ord("a") else "b"
        elif name == "ANY":
            out += "a"
        elif name == "IN":
            out += _in(arg)
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            out += _match(list(arg[2])) * arg[0]
        elif name == "SUBPATTERN":
            out += _match(list(arg[3]))
        elif name == "BRANCH":
            out += _match(list(arg[1][0]))
    return out


def _in(arg: list[Any]) -> str:
    classes = {"CATEGORY_DIGIT": "0", "CATEGORY_WORD": "a", "CATEGORY_SPACE": " ", "CATEGORY_NOT_SPACE": "a"}
    names = [str(op) for op, _ in arg]
    if names[0] == "NEGATE":
        pattern = {chr(v) for op, v in arg[1:] if str(op) == "LITERAL"}
        return next(c for c in "a0_-A" if c not in pattern)
    op, value = arg[0]
    if str(op) == "RANGE":
        return chr(value[0])
    return chr(value) if str(op) == "LITERAL" else classes.get(str(value), "a")
