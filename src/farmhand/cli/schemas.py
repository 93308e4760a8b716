"""JSON Schemas of what verbs print with --json, made from the structs that they are printed from.

`python -m farmhand.cli.schemas DIRECTORY` writes one file for each into docs/schemas (`make schemas`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from farmhand.cli import shapes
from farmhand.cli.shapes import USD as _USD
from farmhand.cli.statusline import HostNote
from farmhand.cost.breakdown import Latency
from farmhand.cost.compare import Comparison
from farmhand.cost.console import MonthCheck
from farmhand.cost.price_page import PriceCheck
from farmhand.cost.report import CUBES, GROUPINGS
from farmhand.cost.summary import Figures
from farmhand.wire.schema import PastTask, StatusAnswer, TaskResult

#: The name of what is no verb's document: each line of --events.
EVENTS = "events"
_TITLES = {EVENTS: "a line of farmhand run --json --events"}
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TEXT, _WHOLE, _OBJECT = {"type": "string"}, {"type": "integer"}, {"type": "object"}
_MOMENT = {"type": "string", "format": "date-time"}
_NULL = {"type": "null"}
_VERSION = {"version": {"const": 1}}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": required | (optional or {}), "required": sorted(required)}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(kind: type) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{kind.__name__}"}


_HEADLINE = _object(dict.fromkeys(("spent", "tasks", "said"), _TEXT))
_ERROR = shapes.schema(shapes.ERROR, {})
#: Only where there are pots.
_MOMENT_OR_NULL = {"type": ["number", "null"]}
_POTS = _array(_object({"name": _TEXT, "left_usd": _USD, "until": _MOMENT_OR_NULL, "api_closed_at": _MOMENT_OR_NULL}))
_CUBE = _object({"columns": _array(_TEXT), "rows": _array({"type": "array"})})
_COMPARISON = {"anyOf": [_ref(Comparison), _NULL]}
_NAMES = ("hosts", "models", "baselines", "causes", "batches", "groups", "cost_edges_usd", "second_names")


def documents() -> dict[str, dict[str, Any]]:
    """Return the schema of each document, by the verb that prints it; `error` is what any verb prints instead.

    `events` is each line that --events prints before the document.
    """
    structs = (Figures, Comparison, MonthCheck, PriceCheck, Latency, StatusAnswer, TaskResult, PastTask, HostNote)
    _, found = msgspec.json.schema_components(structs, ref_template="#/$defs/{name}")
    defs: dict[str, Any] = _printed(found)
    figures = defs["Figures"]
    cost = {
        "type": "object",
        "properties": figures["properties"]
        | {"headline": _HEADLINE, "comparison": _ref(Comparison), "months": _array(_ref(MonthCheck)), "pots": _POTS}
        | {key: {"anyOf": [_OBJECT, _NULL]} for key in ("provider", "interactive")},
        "required": sorted([*figures["required"], "headline", "provider", "interactive", "months"]),
    }
    report = _object(
        _VERSION
        | {"first": _WHOLE, "last": _WHOLE, "batches_in_all": _WHOLE, "headline": _HEADLINE, "figures": _ref(Figures)}
        | {"latency": _array(_ref(Latency)), "second_edges": _array({"type": "number"}), "comparison": _COMPARISON}
        | {name: _array(_TEXT) for name in _NAMES}
        | {"groupings": {"const": list(GROUPINGS)}}
        | dict.fromkeys(CUBES, _CUBE),
        {"pots": _POTS},
    )
    kept = _object({"hosts_file": {"type": ["string", "null"]}, "queued": _WHOLE, "sent": _WHOLE})
    status = _object(
        _VERSION
        | {"hosts": {"type": "object", "additionalProperties": {"anyOf": [_ERROR, _ref(StatusAnswer)]}}}
        | {"spool": _array(kept)}
    )
    line = _object(
        _VERSION
        | {"line": _TEXT, "at": {"type": ["number", "null"]}}
        | {"hosts": {"type": "object", "additionalProperties": {"anyOf": [_ref(HostNote), _NULL]}}}
    )
    shown = {"status": status, "statusline": line, "cost": cost, "report": report}
    checked = defs["PriceCheck"]
    shown["prices check"] = _object(_VERSION | {"ok": {"type": "boolean"}} | checked["properties"])
    shown["error"] = _ERROR
    shown[EVENTS] = shapes.schema(shapes.EVENT, defs)
    shown |= {verb: shapes.document(shape, defs) for verb, shape in shapes.SHAPES.items()}
    return {
        verb: {
            "$schema": _DRAFT,
            "title": _TITLES.get(verb, f"farmhand {verb} --json"),
            **schema,
            **_used(schema, defs),
        }
        for verb, schema in shown.items()
    }


def _printed(value: Any) -> Any:
    """Return a schema of structs as `summary.document` prints them: pico-dollars as US$, moments as text."""
    if isinstance(value, list):
        return [_printed(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("format") == "decimal":
        return {"type": "number"}
    found = {name: _printed(one) for name, one in value.items()}
    if isinstance(properties := value.get("properties"), dict):
        found["properties"] = dict(_property(name, one) for name, one in properties.items())
        found["required"] = [_property(name, {})[0] for name in value.get("required", [])]
    return found


def _property(name: str, schema: dict[str, Any]) -> tuple[str, Any]:
    may_be_null = {"type": "null"} in schema.get("anyOf", ())
    if name.endswith("_pico"):
        name = name.removesuffix("_pico")
        name = name if "usd" in name.split("_") else f"{name}_usd"
        return name, {"anyOf": [_USD, _NULL]} if may_be_null else _USD
    if name == "merged_at":
        return name, {"anyOf": [_MOMENT, _NULL]}
    return name, _printed(schema)


def _used(schema: Any, defs: dict[str, Any]) -> dict[str, Any]:
    """Return the definitions that a schema refers to, in `$defs`; nothing if it has none."""
    names: set[str] = set()
    left = [schema]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            name = str(one.get("$ref", "")).rpartition("/")[2]
            if name and name not in names:
                names.add(name)
                left.append(defs[name])
            left += one.values()
        elif isinstance(one, list):
            left += one
    return {"$defs": {name: defs[name] for name in sorted(names)}} if names else {}


def file_name(verb: str) -> str:
    """Return the name of a schema's file: cloud-up.json for `cloud up`."""
    return f"{verb.replace(' ', '-')}.json"


def text(schema: dict[str, Any]) -> str:
    """Return the content of a schema's file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for verb, document in documents().items():
        Path(sys.argv[1], file_name(verb)).write_text(text(document), "utf-8")
