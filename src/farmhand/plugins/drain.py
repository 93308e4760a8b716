"""What the Ansible module farmhand_drain does on the farm host: takes its agent out of service and back."""

from __future__ import annotations

import time
from typing import Any

from ..core.errors import WireError
from ..wire.client import Client

#: `queue`: refuse new tasks, finish those that are there. `running`: refuse new ones, start none, let run what runs.
MODES = ("off", "queue", "running")
_POLL_S = 0.5


def drain(client: Client, mode: str, wait_s: float = 0.0, *, check: bool = False) -> dict[str, Any]:
    """Bring the agent to `mode` and wait up to `wait_s` seconds until it is empty; with `check` only predict.

    The answer has `changed`, `mode`, `before` (the mode), `version` of the agent, `left` (tasks by state), `empty`,
    and `stuck`: whether what is left cannot end by itself. Raises WireError, `cannot_drain` for an agent without drain.
    """
    status = client.status()
    before = drain_mode(status)
    if before != mode and not check:
        _set(client, mode, str(status.get("version", "?")))
    deadline = time.monotonic() + (0.0 if check else wait_s)
    while True:
        if not check:
            status = client.status()
        answer = {
            "changed": before != mode,
            "mode": mode,
            "before": before,
            "version": str(status.get("version", "?")),
            **remaining(status, mode),
        }
        if answer["empty"] or answer["stuck"] or time.monotonic() >= deadline:
            return answer
        time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))


def drain_mode(status: dict[str, Any]) -> str:
    """The mode that an agent's status tells; `draining` for one that drains and does not say how."""
    if status.get("state") != "draining":
        return "off"
    return str(status.get("drain") or "draining")


def remaining(status: dict[str, Any], mode: str) -> dict[str, Any]:
    """What is left to wait for in `mode`: `left`, `empty`, `stuck` and, in words, `msg`."""
    left = {name: int(status.get(name) or 0) for name in ("running", "queued", "awaiting_key")}
    empty = mode == "off" or not (left["running"] if mode == "running" else sum(left.values()))
    stuck = mode == "queue" and not empty and not left["running"] and not left["queued"]
    return {"left": left, "empty": empty, "stuck": stuck, "msg": _message(status, left, mode, empty=empty)}


def _message(status: dict[str, Any], left: dict[str, int], mode: str, *, empty: bool) -> str:
    words = {"running": "running", "queued": "queued", "awaiting_key": "awaiting a key"}
    said = ", ".join(f"{count} {words[name]}" for name, count in left.items() if count) or "no unfinished task"
    if mode == "off":
        return f"in service: {said}"
    # Why a task waits is worth a word only where it holds up the drain.
    reasons = [] if empty else [str(x["detail"]) for x in status.get("waiting") or [] if _holds(x)]
    return f"{'empty' if empty else 'not empty'}: {said}" + (f" ({'; '.join(reasons)})" if reasons else "")


def _holds(reason: Any) -> bool:
    return isinstance(reason, dict) and bool(reason.get("detail")) and reason.get("reason") not in ("slots", "draining")


def _set(client: Client, mode: str, version: str) -> None:
    try:
        client.drain(mode)
    except WireError as error:
        if error.code != "no_such_route":
            raise
        message = f"the agent ({version}) is too old to be drained"
        raise WireError("cannot_drain", message, "upgrade it: playbooks/upgrade.yml", error.status) from None


def difference(answer: dict[str, Any]) -> dict[str, str]:
    """Ansible's diff of the mode."""
    return {"before": f"drain: {answer['before']}\n", "after": f"drain: {answer['mode']}\n"}


def failure(answer: dict[str, Any], wait_s: float) -> str | None:
    """The one line for an agent that was waited for and is not empty; None if there is nothing to complain about."""
    if wait_s <= 0 or answer["empty"]:
        return None
    if answer["stuck"]:
        return f"{answer['msg']}; it cannot be emptied without a key that the API accepts"
    return f"{answer['msg']} after {wait_s:g} s"
