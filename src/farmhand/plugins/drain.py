"""The implementation of the action plugin farmhand_drain: drain a host's agent, or put it back into service."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, get_args

from farmhand.core.errors import FarmhandError, WireError
from farmhand.core.task import DrainMode
from farmhand.plugins.handover import HostAgent
from farmhand.wire.transport import AGENT_SOCKET

MODES = get_args(DrainMode)
#: The first and the longest pause between two status requests, each of which is a command on the host. Seconds.
_PAUSES_S = (0.5, 5.0)
_NO_KEY = "it cannot be emptied without a key that the API accepts"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "mode": {"type": "str", "choices": list(MODES), "default": "queue"},
    "wait_s": {"type": "float", "default": 0},
    "key_source": {"type": "str", "no_log": False},
    "socket": {"type": "path", "default": AGENT_SOCKET},
}


def drain(
    agent: HostAgent,
    mode: str,
    wait_s: float = 0.0,
    *,
    check: bool = False,
    say: Callable[[str], None] = lambda _text: None,
    bring_key: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """Set the agent's drain mode and wait up to `wait_s` seconds until it is empty; with `check` only predict.

    `say` gets the number of remaining tasks whenever it changes. `bring_key` is called once if all remaining tasks wait
    for a key. The answer has `changed`, `mode`, `before` (the mode), `version` of the agent, `left` (tasks by state),
    `empty`, `stuck` (the remaining tasks cannot end by themselves) and `msg`. Raise WireError, `cannot_drain` for an
    agent without drain.
    """
    status = agent.status()
    before, version = drain_mode(status), str(status.get("version", "?"))
    if before != mode and not check:
        _set(agent, mode, version)
        status = agent.status()
    began, pause, said = time.monotonic(), _PAUSES_S[0], ""
    while True:
        answer: dict[str, Any] = {"changed": before != mode, "mode": mode, "before": before, "version": version}
        answer |= remaining(status, mode)
        waited = time.monotonic() - began
        if check or wait_s <= 0 or answer["empty"]:
            return answer
        if answer["stuck"]:
            if bring_key is None:
                return answer
            try:
                bring_key()
            except FarmhandError as error:
                return answer | {"msg": f"{answer['msg']}; {_NO_KEY} ({error})"}
            bring_key = None
        else:
            left = ", ".join(f"{count} {name}" for name, count in answer["left"].items() if count)
            if left != said:
                say(f"{left}; {waited:.0f} of {wait_s:g} s")
            said = left
            if waited >= wait_s:
                return answer
            time.sleep(min(pause, wait_s - waited))
            pause = min(2 * pause, _PAUSES_S[1])
        status = agent.status()


def drain_mode(status: dict[str, Any]) -> str:
    """Return the mode in an agent's status; `draining` for an agent that drains without reporting its mode."""
    if status.get("state") != "draining":
        return "off"
    return str(status.get("drain") or "draining")


def remaining(status: dict[str, Any], mode: str) -> dict[str, Any]:
    """Return the tasks to wait for in `mode`: `left`, `empty`, `stuck` and a message `msg`."""
    left = {name: int(status.get(name) or 0) for name in ("running", "queued", "awaiting_key")}
    empty = mode == "off" or not (left["running"] if mode == "running" else sum(left.values()))
    stuck = mode == "queue" and not empty and not left["running"] and not left["queued"]
    return {"left": left, "empty": empty, "stuck": stuck, "msg": _message(status, left, mode, empty=empty)}


def _message(status: dict[str, Any], left: dict[str, int], mode: str, *, empty: bool) -> str:
    words = {"running": "running", "queued": "queued", "awaiting_key": "awaiting a key"}
    said = ", ".join(f"{count} {words[name]}" for name, count in left.items() if count) or "no unfinished task"
    if mode == "off":
        return f"in service: {said}"
    # The reasons why tasks wait are reported only if they delay the drain.
    reasons = [] if empty else [str(x["detail"]) for x in status.get("waiting") or [] if _holds(x)]
    return f"{'empty' if empty else 'not empty'}: {said}" + (f" ({'; '.join(reasons)})" if reasons else "")


def _holds(reason: Any) -> bool:
    return isinstance(reason, dict) and bool(reason.get("detail")) and reason.get("reason") not in ("slots", "draining")


def _set(agent: HostAgent, mode: str, version: str) -> None:
    try:
        agent.drain(mode)
    except WireError as error:
        if error.code != "no_such_route":
            raise
        message = f"the agent ({version}) is too old to be drained"
        raise WireError("cannot_drain", message, "upgrade it: playbooks/upgrade.yml", error.status) from None


def difference(answer: dict[str, Any]) -> dict[str, str]:
    """Return Ansible's diff of the mode."""
    return {"before": f"drain: {answer['before']}\n", "after": f"drain: {answer['mode']}\n"}


def failure(answer: dict[str, Any], wait_s: float) -> str | None:
    """Return a one-line error if the agent is not empty after the wait, or None."""
    if wait_s <= 0 or answer["empty"]:
        return None
    if answer["stuck"]:
        return str(answer["msg"]) if _NO_KEY in answer["msg"] else f"{answer['msg']}; {_NO_KEY}"
    return f"{answer['msg']} after {wait_s:g} s"
