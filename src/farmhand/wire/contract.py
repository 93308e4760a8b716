"""The wire as a document, printed by `python -m farmhand.wire.contract`: JSON Schemas of all requests and answers."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from farmhand.core.task import Task
from farmhand.wire import schema
from farmhand.wire.requests import BatchLimits, Cancellation, DrainOrder, Submission
from farmhand.wire.schema import AGENT_HEADER, KEY_HEADER, WIRE, WIRE_HEADER

#: Method, path, body, answer. For an answer of lines, the schema is that of one line.
CALLS: tuple[tuple[str, str, Any, Any], ...] = (
    ("GET", "/v1/status", None, schema.StatusAnswer),
    ("POST", "/v1/tasks", Submission[Task], schema.StatesAnswer),
    ("POST", "/v1/tasks/check", Submission[Task], schema.StatesAnswer),
    ("POST", "/v1/tasks/count", Submission[Task], schema.CountAnswer),
    ("GET", "/v1/tasks", None, schema.TasksAnswer),
    ("POST", "/v1/tasks/cancel", Cancellation, schema.StatesAnswer),
    ("GET", "/v1/tasks/{id}", None, schema.TaskAnswer),
    ("DELETE", "/v1/tasks/{id}", None, schema.TaskAnswer),
    ("GET", "/v1/tasks/{id}/events", None, schema.TaskEvent),
    ("PUT", "/v1/batches/{batch}", BatchLimits, schema.BatchAnswer),
    ("GET", "/v1/batches/{batch}", None, schema.BatchAnswer),
    ("DELETE", "/v1/batches/{batch}", None, dict[str, Any]),
    ("PUT", "/v1/files/{id}", None, schema.FileAnswer),
    ("GET", "/v1/files/{id}/{name}", None, Any),
    ("GET", "/v1/results", None, schema.ResultsAnswer),
    ("GET", "/v1/history", None, schema.HistoryAnswer),
    ("GET", "/v1/charges", None, dict[str, Any]),
    ("GET", "/v1/finished", None, dict[str, Any]),
    ("GET", "/v1/usage", None, dict[str, Any]),
    ("PUT", "/v1/key", None, schema.KeyAnswer),
    ("DELETE", "/v1/key/{fingerprint}", None, schema.KeyAnswer),
    ("PUT", "/v1/drain", DrainOrder, schema.StatusAnswer),
)
#: The verbs of jada-agent that answer in JSON.
VERBS = {"jada-agent task": schema.TaskCallAnswer, "jada-agent turn": schema.TurnAnswer}


def document() -> dict[str, Any]:
    """Return the wire's version, headers, calls and their schemas."""
    kinds = [kind for call in CALLS for kind in call[2:] if kind is not None]
    kinds += [*VERBS.values(), schema.ErrorAnswer]
    found, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    schemas = iter(found)
    calls = {}
    for method, path, body, _ in CALLS:
        calls[f"{method} {path}"] = ({"body": next(schemas)} if body is not None else {}) | {"answer": next(schemas)}
    verbs = {verb: {"answer": next(schemas)} for verb in VERBS}
    return {
        "title": "The wire between farmhand and jada-agent",
        "version": WIRE,
        "headers": {"version": WIRE_HEADER, "agent": AGENT_HEADER, "key": KEY_HEADER},
        "calls": calls | verbs,
        "error": next(schemas),
        "$defs": _with_numbers(components),
    }


def _with_numbers(value: Any) -> Any:
    """Return `value` with money as a number, as on the wire."""
    if isinstance(value, dict):
        if value.get("format") == "decimal":
            return {"type": "number"}
        return {name: _with_numbers(item) for name, item in value.items()}
    return [_with_numbers(item) for item in value] if isinstance(value, list) else value


def text() -> str:
    """Return the document with the formatting of docs/wire.schema.json."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")  # noqa: T201  (a command's own stdout)
