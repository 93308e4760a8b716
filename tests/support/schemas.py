"""Documents of the commands beside docs/schemas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema

from farmhand.cli.schemas import EVENTS, file_name

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
#: All that the document of an error can have.
_OF_ERROR = {"error", "id", "state"}
_OTHER_NAMES = {"claude-cheap": "run", "top": "status"}


def check(verb: str, shown: Any) -> None:
    """Raise unless `shown` is as the verb's schema says, and has no field that the schema does not know."""
    schema = _closed(json.loads((SCHEMAS / file_name(verb)).read_text()))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(shown)


def check_said(words: Sequence[str], out: str | bytes) -> None:
    """Check what a command with these words has printed, if that was JSON: each of its lines."""
    if "--json" not in words:
        return
    given = [_OTHER_NAMES.get(word, word) for word in words if word not in ("farmhand", "--json")]
    names = (" ".join(given[:n]) for n in (3, 2, 1))
    verb = next((name for name in names if (SCHEMAS / file_name(name)).exists()), "no verb with --json")
    for line in out.splitlines():
        shown = json.loads(line)
        event = "--events" in words and "type" in shown
        check(EVENTS if event else "error" if "error" in shown and shown.keys() <= _OF_ERROR else verb, shown)


def _closed(value: Any) -> Any:
    if isinstance(value, list):
        return [_closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: _closed(one) for name, one in value.items()}
    if "properties" in found and "type" in found:
        found["additionalProperties"] = False
    return found
