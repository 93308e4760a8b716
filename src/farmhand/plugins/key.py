"""The implementation of the action plugin farmhand_key: advance a key rotation to a state, or predict the changes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from farmhand.core.errors import WireError
from farmhand.core.keys import fingerprint
from farmhand.rotation.build import build, memory_of
from farmhand.rotation.machine import Machine
from farmhand.rotation.state import STEPS

STATES = ("status", *STEPS, "aborted")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": list(STATES), "default": "retired"},
    "new_key_source": {"type": "str", "no_log": False},
    "planned": {"type": "str"},
    "force": {"type": "bool", "default": False},
    "key_source": {"type": "str", "no_log": False},
    "hosts": {"type": "list", "elements": "dict"},
    "upstream_url": {"type": "str"},
    "admin_key_source": {"type": "str", "no_log": False},
    "admin_url": {"type": "str"},
    "connect_timeout_s": {"type": "float"},
    "drain_s": {"type": "float", "default": 3900.0},
    "retire_s": {"type": "float", "default": 30.0},
    "state_dir": {"type": "path"},
}


def apply(parameters: Mapping[str, Any], new_key: str | None, *, check: bool) -> dict[str, Any]:
    """Return the result: `changed`, the fields of `Machine.status`, `pending`, `progress`, `todo`, `diff`.

    `new_key` is the rotation's new key; None if the rotation continues with the one that it has. `pending`: a rotation
    is unfinished, or would be in check mode. Raise WireError.
    """
    said: list[str] = []
    machine = build(parameters, tell=said.append)
    before = machine.status()
    todo = ""
    if parameters["state"] == "status":
        return {"changed": False, "pending": before["unfinished"], "progress": [], "todo": "", **before}
    if check:
        changed, key, new = _predict(machine, parameters, before, new_key)
        after = {**before, "step": parameters["state"] if changed else before["step"], "current": key, "new": new}
        pending = changed or before["unfinished"]
    else:
        with memory_of(parameters).lock(), contextlib.closing(machine):
            changed, todo = _apply(machine, parameters, new_key)
        after = machine.status()
        pending = after["unfinished"]
    diff = {"before": _lines(before), "after": _lines(after)} if changed else {}
    return {"changed": changed, "pending": pending, "progress": said, "todo": todo, "diff": diff, **after}


def _apply(machine: Machine, parameters: Mapping[str, Any], new: str | None) -> tuple[bool, str]:
    """Return whether anything was changed, and what has to be done by hand."""
    wanted = parameters["state"]
    if wanted == "aborted":
        return machine.abort(), ""
    changed = machine.stage(new) if new is not None else False
    about = machine.status()
    if not about["unfinished"]:
        if new is None and not _is_there(about):
            raise WireError("no_rotation", "no rotation goes on", "give new_key_source to begin one")
        return changed, ""
    try:
        return machine.advance(wanted) or changed, ""
    except WireError as error:
        if error.code != "retire_by_hand":
            raise
        return changed or about["step"] != machine.status()["step"], str(error)


def _predict(
    machine: Machine, parameters: Mapping[str, Any], about: dict[str, Any], new: str | None
) -> tuple[bool, str, str]:
    """Return whether `_apply` would change anything, the key then in use, and the new one. Raise as it would."""
    wanted, current = parameters["state"], about["current"]
    if wanted == "aborted":
        return about["unfinished"], about["old"] if about["unfinished"] else current, about.get("new", "")
    switched = STEPS.index(wanted) >= STEPS.index("switched")
    if new is not None and machine.would_stage(new):
        return True, fingerprint(new) if switched else current, fingerprint(new)
    if about["unfinished"]:
        changed = not machine.reached(wanted)
        return changed, about["new"] if changed and switched else current, about["new"]
    planned = str(parameters.get("planned") or "")
    if new is None and not _is_there(about) and not planned:
        raise WireError("no_rotation", "no rotation goes on", "give new_key_source to begin one")
    return bool(planned), planned if planned and switched else current, planned or about.get("new", "")


def _is_there(about: dict[str, Any]) -> bool:
    """Return whether the last rotation has ended and its key is in use."""
    return bool(about["step"] == "retired" and about["current"] == about["new"])


def _lines(about: dict[str, Any]) -> str:
    return f"key: {about['current']}\nrotation: {about['step']}\n"
