"""The implementation of the action plugin farmhand_key: advance a key rotation to a state, or predict the changes."""

from __future__ import annotations

from typing import Any

from farmhand.core.errors import WireError
from farmhand.core.keys import fingerprint
from farmhand.rotation.machine import Machine
from farmhand.rotation.state import STEPS


def apply(machine: Machine, wanted: str, new_key: str | None, *, planned: str, check: bool) -> dict[str, Any]:
    """Return the result: `changed`, the fields of `Machine.status`, `pending`, `todo`, `diff`.

    `new_key` is the rotation's new key; None if the rotation continues with the one that it has. `planned` is the
    fingerprint of the key that a previous step would have staged. `pending`: a rotation is unfinished, or would be in
    check mode. Raise WireError.
    """
    before = machine.status()
    todo = ""
    if wanted == "status":
        return {"changed": False, "pending": before["unfinished"], "todo": "", **before}
    if check:
        changed, key, new = _predict(machine, wanted, before, new_key, planned)
        after = {**before, "step": wanted if changed else before["step"], "current": key, "new": new}
        pending = changed or before["unfinished"]
    else:
        with machine.running():
            changed, todo = _apply(machine, wanted, new_key)
        after = machine.status()
        pending = after["unfinished"]
    diff = {"before": _lines(before), "after": _lines(after)} if changed else {}
    return {"changed": changed, "pending": pending, "todo": todo, "diff": diff, **after}


def _apply(machine: Machine, wanted: str, new: str | None) -> tuple[bool, str]:
    """Return whether anything was changed, and what has to be done by hand."""
    if wanted == "aborted":
        return machine.abort(), ""
    changed = machine.stage(new) if new is not None else False
    about = machine.status()
    if not about["unfinished"]:
        if new is None:
            _check_is_there(about)
        return changed, ""
    try:
        return machine.advance(wanted) or changed, ""
    except WireError as error:
        if error.code != "retire_by_hand":
            raise
        return changed or about["step"] != machine.status()["step"], str(error)


def _predict(
    machine: Machine, wanted: str, about: dict[str, Any], new: str | None, planned: str
) -> tuple[bool, str, str]:
    """Return whether `_apply` would change anything, the key then in use, and the new one. Raise as it would."""
    current = about["current"]
    if wanted == "aborted":
        return about["unfinished"], about["old"] if about["unfinished"] else current, about.get("new", "")
    if new is not None and machine.would_stage(new):
        changed, key = True, fingerprint(new)
    elif about["unfinished"]:
        changed, key = not machine.reached(wanted), about["new"]
    else:
        if new is None and not planned:
            _check_is_there(about)
        changed, key = bool(planned), planned or about.get("new", "")
    switched = changed and STEPS.index(wanted) >= STEPS.index("switched")
    return changed, key if switched else current, key


def _check_is_there(about: dict[str, Any]) -> None:
    """Check that the last rotation has ended and its key is in use. Raise WireError."""
    if not (about["step"] == "retired" and about["current"] == about["new"]):
        raise WireError("no_rotation", "no rotation goes on", "give new_key_source to begin one")


def _lines(about: dict[str, Any]) -> str:
    return f"key: {about['current']}\nrotation: {about['step']}\n"
