"""What the Ansible module farmhand_key does: bring a rotation to a state, or say what that would change."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ..core.errors import WireError
from ..core.keys import fingerprint
from ..core.keysource import read_key
from ..rotation.build import build, check_new_key_source, memory_of
from ..rotation.machine import Machine
from ..rotation.state import STEPS

STATES = ("status", *STEPS, "aborted")


def apply(parameters: Mapping[str, Any], *, check: bool) -> dict[str, Any]:
    """The module's result: `changed`, what `Machine.status` says, `pending`, `progress`, `todo`, `diff`.

    `pending`: a rotation goes on, or would in check mode. Raises WireError.
    """
    said: list[str] = []
    machine = build(parameters, tell=said.append)
    before = machine.status()
    todo = ""
    if parameters["state"] == "status":
        return {"changed": False, "pending": before["unfinished"], "progress": [], "todo": "", **before}
    if check:
        changed, key, new = _predict(machine, parameters, before)
        after = {**before, "step": parameters["state"] if changed else before["step"], "current": key, "new": new}
        pending = changed or before["unfinished"]
    else:
        with memory_of(parameters).lock(), contextlib.closing(machine):
            changed, todo = _apply(machine, parameters)
        after = machine.status()
        pending = after["unfinished"]
    diff = {"before": _lines(before), "after": _lines(after)} if changed else {}
    return {"changed": changed, "pending": pending, "progress": said, "todo": todo, "diff": diff, **after}


def _apply(machine: Machine, parameters: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether anything was changed, and what is left to be done by hand."""
    wanted = parameters["state"]
    if wanted == "aborted":
        return machine.abort(), ""
    new = _new_key(parameters)
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


def _predict(machine: Machine, parameters: Mapping[str, Any], about: dict[str, Any]) -> tuple[bool, str, str]:
    """Whether `_apply` would change anything, the key that would be in use, and the new one. Raises as it would."""
    wanted, current = parameters["state"], about["current"]
    if wanted == "aborted":
        return about["unfinished"], about["old"] if about["unfinished"] else current, about.get("new", "")
    switched = STEPS.index(wanted) >= STEPS.index("switched")
    new = _new_key(parameters)
    if new is not None and machine.would_stage(new):
        return True, fingerprint(new) if switched else current, fingerprint(new)
    if about["unfinished"]:
        changed = not machine.reached(wanted)
        return changed, about["new"] if changed and switched else current, about["new"]
    planned = str(parameters.get("planned") or "")
    if new is None and not _is_there(about) and not planned:
        raise WireError("no_rotation", "no rotation goes on", "give new_key_source to begin one")
    return bool(planned), planned if planned and switched else current, planned or about.get("new", "")


def _new_key(parameters: Mapping[str, Any]) -> str | None:
    source = parameters.get("new_key_source")
    return None if not source else read_key(check_new_key_source(str(source)))


def _is_there(about: dict[str, Any]) -> bool:
    """Whether the last rotation has ended, and its key is in use."""
    return bool(about["step"] == "retired" and about["current"] == about["new"])


def _lines(about: dict[str, Any]) -> str:
    return f"key: {about['current']}\nrotation: {about['step']}\n"
