"""The implementation of the action plugin farmhand_drain: drain a host's agent, or put it back into service."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from farmhand.core.errors import FarmhandError, WireError
from farmhand.plugins.handover import HostAgent

#: The first and the longest pause between two status requests, each of which is a command on the host. Seconds.
_PAUSES_S = (0.5, 5.0)
_NO_KEY = "it cannot be emptied without a key that the API accepts"
_WORDS = {"running": "running", "queued": "queued", "awaiting_key": "awaiting a key"}


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
    for a key. The answer has `changed`, `mode`, `before` (the mode), `version` of the agent, `diff` and what
    `remaining` returns. Raise WireError, `cannot_drain` for an agent without drain.
    """
    status = agent.status()
    before, version = drain_mode(status), str(status.get("version", "?"))
    if before != mode and not check:
        try:
            agent.drain(mode)
        except WireError as error:
            if error.code != "no_such_route":
                raise
            message = f"the agent ({version}) is too old to be drained"
            raise WireError("cannot_drain", message, "upgrade it: playbooks/upgrade.yml", error.status) from None
        status = agent.status()
    diff = {"before": f"drain: {before}\n", "after": f"drain: {mode}\n"}
    known: dict[str, Any] = {
        "changed": before != mode,
        "mode": mode,
        "before": before,
        "version": version,
        "diff": diff,
    }
    began, pause, said = time.monotonic(), _PAUSES_S[0], ""
    while True:
        answer = known | remaining(status, mode)
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
    return str(status.get("drain") or "draining") if status.get("state") == "draining" else "off"


def remaining(status: dict[str, Any], mode: str) -> dict[str, Any]:
    """Return the tasks to wait for in `mode`.

    `left` is tasks by state, `empty` whether there is nothing to wait for, `stuck` whether the remaining tasks cannot
    end by themselves, and `msg` all that in words.
    """
    left = {name: int(status.get(name) or 0) for name in _WORDS}
    empty = mode == "off" or not (left["running"] if mode == "running" else sum(left.values()))
    stuck = mode == "queue" and not empty and not left["running"] and not left["queued"]
    said = ", ".join(f"{count} {_WORDS[name]}" for name, count in left.items() if count) or "no unfinished task"
    message = f"{'in service' if mode == 'off' else 'empty' if empty else 'not empty'}: {said}"
    # The reasons why tasks wait are reported only if they delay the drain.
    waiting = [] if empty else status.get("waiting") or []
    reasons = [x["detail"] for x in waiting if x.get("detail") and x["reason"] not in ("slots", "draining")]
    if reasons:
        message += f" ({'; '.join(reasons)})"
    return {"left": left, "empty": empty, "stuck": stuck, "msg": message}


def failure(answer: dict[str, Any], wait_s: float) -> str | None:
    """Return a one-line error if the agent is not empty after the wait, or None."""
    if wait_s <= 0 or answer["empty"]:
        return None
    if answer["stuck"]:
        return str(answer["msg"]) if _NO_KEY in answer["msg"] else f"{answer['msg']}; {_NO_KEY}"
    return f"{answer['msg']} after {wait_s:g} s"
