"""Documents of the commands beside docs/schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"


def check(verb: str, shown: Any) -> None:
    """Raise unless `shown` is as the verb's schema says, and has no field that the schema does not know."""
    schema = _closed(json.loads((SCHEMAS / f"{verb}.json").read_text()))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(shown)


def _closed(value: Any) -> Any:
    if isinstance(value, list):
        return [_closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: _closed(one) for name, one in value.items()}
    if "properties" in found and "type" in found:
        found["additionalProperties"] = False
    return found
