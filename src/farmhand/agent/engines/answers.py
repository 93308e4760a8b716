"""Structured answers: the schema a task asks for, and whether an answer meets it."""

from __future__ import annotations

from typing import Any

from farmhand.agent.engines import EngineError


def as_object(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a tool's input, which is always an object: any other answer stands in its one property."""
    if schema.get("type") == "object":
        return schema
    shared: dict[str, Any] = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    inner = {name: value for name, value in schema.items() if name not in {"$schema", "$id", *shared}}
    return {"type": "object", "properties": {"answer": inner}, "required": ["answer"], **shared}


def from_object(schema: dict[str, Any], value: Any) -> Any:
    """The answer inside a tool's input that was asked for with `as_object(schema)`."""
    if schema.get("type") != "object" and isinstance(value, dict) and "answer" in value:
        return value["answer"]
    return value


def check_answer(schema: dict[str, Any], answer: Any) -> Any:
    """`answer` where it meets `schema`; else EngineError `no_answer`, worth another attempt."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import EMPTY_REGISTRY

    try:
        # With a registry of its own the validator fetches nothing: by default it would ask a schema's $ref of any host.
        error = best_match(Draft202012Validator(schema, registry=EMPTY_REGISTRY).iter_errors(answer))
    except Unresolvable as unresolvable:
        raise EngineError(
            "invalid_schema", f"the schema refers to something that is not in it: {unresolvable}"
        ) from None
    except RecursionError:
        raise EngineError("invalid_schema", "the schema goes in circles, or is nested too deeply") from None
    if error is None:
        return answer
    where = "/".join(str(part) for part in error.absolute_path) or "its root"
    raise EngineError(
        "no_answer",
        f"the model's answer does not meet the schema: {error.message.splitlines()[0][:200]} (at {where})",
        hint="make the schema or the prompt simpler, or take a larger model",
        retryable=True,
    )
