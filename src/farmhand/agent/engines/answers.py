"""Structured answers: the schema that a task requests, and the check of an answer against it."""

from __future__ import annotations

from typing import Any

import msgspec

from farmhand.agent.engines import EngineError
from farmhand.core.schemas import MAX_ANSWER, POOL, Unchecked


def as_object(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a tool's input, which must be an object. Other schemas become its one property `answer`."""
    if schema.get("type") == "object":
        return schema
    shared: dict[str, Any] = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    inner = {name: value for name, value in schema.items() if name not in {"$schema", "$id", *shared}}
    return {"type": "object", "properties": {"answer": inner}, "required": ["answer"], **shared}


def from_object(schema: dict[str, Any], value: Any) -> Any:
    """Return the answer inside a tool's input that was requested with `as_object(schema)`."""
    if schema.get("type") != "object" and isinstance(value, dict) and "answer" in value:
        return value["answer"]
    return value


async def check_answer(schema: dict[str, Any], answer: Any) -> Any:
    """Return `answer` if it matches `schema`. Raise EngineError otherwise; `no_answer` is retryable.

    The check runs in another process. An answer that is too large, or takes too long to check, ends the task: it has
    been paid for, and the next one would likely fail in the same way and cost as much.
    """
    try:
        size = len(msgspec.json.encode(answer))
    except (UnicodeEncodeError, RecursionError):
        raise EngineError("no_answer", "the model's answer is no text that can be kept", retryable=True) from None
    if size > MAX_ANSWER:
        raise EngineError(
            "no_answer", f"the structured answer has {size} bytes, the limit is {MAX_ANSWER}", hint="ask for less"
        )
    try:
        code, message = await POOL.checked(schema, answer=answer)
    except Unchecked as unchecked:
        raise EngineError(
            "schema_limit" if unchecked.too_hard else "agent_error",
            f"the answer cannot be checked against the schema: {unchecked.message}",
            hint="make the schema's patterns simpler: nested repetitions such as (a+)+ take for ever",
        ) from None
    if code:
        hint = "make the schema or the prompt simpler, or take a larger model" if code == "no_answer" else ""
        raise EngineError(code, message, hint=hint, retryable=code == "no_answer")
    return answer
