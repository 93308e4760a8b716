"""A task as a request of the Messages API. Containers on AWS need no more of an engine to know what it may cost."""

from __future__ import annotations

from typing import Any

from farmhand.core.claude import messages
from farmhand.core.task import ALWAYS_THINKING, Task

_ANSWER_TOOL = "answer"


def as_object(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a tool's input, which must be an object. Other schemas become its one property `answer`.

    It has no `$schema`: the API reads 2020-12, the CLI draft-07, and each refuses the other's URL.
    """
    if schema.get("type") == "object":
        return {name: value for name, value in schema.items() if name != "$schema"}
    shared: dict[str, Any] = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    inner = {name: value for name, value in schema.items() if name not in {"$schema", "$id", *shared}}
    return {"type": "object", "properties": {"answer": inner}, "required": ["answer"], **shared}


def request_body(task: Task, model: str) -> dict[str, Any]:
    """Return the Messages API request for `task`.

    A schema is requested as the input of one tool, which is forced if the model allows it. This supports any schema;
    the provider's own structured outputs support a subset. Source: its tool use and structured outputs references.
    """
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": task.max_tokens,
        "messages": list(messages(task)),
    }
    thinks = model in ALWAYS_THINKING
    if not thinks:
        body["thinking"] = {"type": "disabled"}
    system = [task.system] if task.system else []
    if task.schema is not None:
        schema = as_object(task.schema)
        body["tools"] = [{"name": _ANSWER_TOOL, "description": "Give the answer.", "input_schema": schema}]
        body["tool_choice"] = {"type": "auto"} if thinks else {"type": "tool", "name": _ANSWER_TOOL}
        if thinks:
            system.append(f"Give your answer by calling the tool {_ANSWER_TOOL}, once.")
    if system:
        body["system"] = "\n\n".join(system)
    return body
