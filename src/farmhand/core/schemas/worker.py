"""The worker program: reads a JSON request per line, `{"schema", "limit_s"}` and maybe `answer`; writes a verdict each.

A verdict is `{"code", "message"}`: "" is valid, `invalid_schema`, `no_answer`, `too_hard`. An empty line says that the
worker is ready. It ends with its stdin, and by itself after `limit_s`, because its parent may have ended by then.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend, validates
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

#: Memory limit in bytes: some hundred times the largest answer, and too little to bring down the agent.
_MEMORY = 256 * 1024 * 1024
#: Keywords whose value is data and not a schema, and keywords whose value maps arbitrary names to schemas.
_DATA = frozenset({"const", "enum", "default", "examples"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_CIRCLES = "the schema goes in circles, or is nested too deeply"


def _unique(_: Any, wanted: Any, value: Any, __: Any) -> Iterator[ValidationError]:
    """Check the keyword `uniqueItems` in one pass; the library compares each item with every other one."""
    if wanted is not True or not isinstance(value, list):
        return
    seen: set[Any] = set()
    for number, item in enumerate(value):
        if (form := _form(item)) in seen:
            yield ValidationError(f"item {number} stands there before: the items have to be unique")
            return
        seen.add(form)


def _form(value: Any) -> Any:
    """Return a value that is equal for equal JSON only: 1 equals 1.0, but not true."""
    if isinstance(value, dict):
        return "object", frozenset((name, _form(part)) for name, part in value.items())
    if isinstance(value, list):
        return ("array", *map(_form, value))
    return ("bool", value) if isinstance(value, bool) else value


#: Replaces the library's validator, which would otherwise still be used for its own schema and every part with a
#: `$schema`.
_Validator: type[Draft202012Validator] = extend(Draft202012Validator, {"uniqueItems": _unique})  # type: ignore[no-untyped-call]
validates("2020-12")(_Validator)  # type: ignore[arg-type]  # the stubs' protocol is stricter than the function


def check_schema(schema: Any) -> str:
    """Return, on one line, why `schema` is not a usable JSON Schema (draft 2020-12), or "" if it is."""
    try:
        _Validator.check_schema(schema)
        resolver = EMPTY_REGISTRY.with_resource("", DRAFT202012.create_resource(schema)).resolver()
        for ref in _references(schema):
            resolver.lookup(ref)
    except SchemaError as error:
        where = "/".join(str(part) for part in error.absolute_path) or "its root"
        return f"not a JSON Schema: {_line(error.message)} (at {where})"
    except (re.error, OverflowError) as error:
        return f"not a JSON Schema: a pattern cannot be used: {_line(str(error))}"
    except Unresolvable as error:
        return f"the schema refers to something that is not in it: {_line(str(error))}"
    except RecursionError:
        return f"not a JSON Schema: {_CIRCLES}"
    return ""


def _references(schema: Any) -> list[str]:
    """Return the references in the schema; none if parts have a `$id`, because references would be relative to it."""
    parts = list(_parts(schema))
    if any("$id" in part for part in parts):
        return []
    return [part[name] for part in parts for name in ("$ref", "$dynamicRef") if isinstance(part.get(name), str)]


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield all schemas in `schema`, including itself."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            yield part
            for name, value in part.items():
                if name in _NAMED and isinstance(value, dict):
                    waiting += value.values()
                elif name not in _DATA:
                    waiting.append(value)


def check_answer(schema: Any, answer: Any) -> tuple[str, str]:
    """Return (code, message) of the check of `answer` against `schema`."""
    try:
        # An empty registry: by default the validator would request a schema's $ref from any host.
        error = best_match(_Validator(schema, registry=EMPTY_REGISTRY).iter_errors(answer))
    except Unresolvable as unresolvable:
        return "invalid_schema", f"the schema refers to something that is not in it: {_line(str(unresolvable))}"
    except (re.error, OverflowError) as unusable:
        return "invalid_schema", f"a pattern of the schema cannot be used: {_line(str(unusable))}"
    except RecursionError:
        return "invalid_schema", _CIRCLES
    if error is None:
        return "", ""
    where = "/".join(str(part) for part in error.absolute_path) or "its root"
    return "no_answer", f"the model's answer does not meet the schema: {_line(error.message)} (at {where:.200})"


def _line(text: str) -> str:
    return " ".join(text[:1000].split())[:200]


def _verdict(line: bytes) -> tuple[str, str]:
    try:
        request = json.loads(line)
        # The kernel kills the process: no Python signal handler would run during a pattern search.
        signal.setitimer(signal.ITIMER_REAL, request["limit_s"])
        if "answer" in request:
            return check_answer(request["schema"], request["answer"])
        message = check_schema(request["schema"])
    except RecursionError:
        return "too_hard", "it is nested too deeply"
    except MemoryError:
        return "too_hard", "it takes too much memory"
    return ("invalid_schema", message) if message else ("", "")


def main() -> None:
    """Answer requests until stdin ends."""
    # Start even if a limit cannot be set, because of a system call filter, say: there is the time limit as well.
    for what, value in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (value, value))
    out = sys.stdout.buffer
    out.write(b"\n")
    out.flush()
    for line in sys.stdin.buffer:
        code, message = _verdict(line)
        signal.setitimer(signal.ITIMER_REAL, 0)
        out.write(json.dumps({"code": code, "message": message}).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
