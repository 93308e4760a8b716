"""Conversion of orders and replies to and from the wire, for places whose workers are agents."""

from __future__ import annotations

import json
from typing import Any

from farmhand.core.errors import FarmhandError, WireError
from farmhand.core.keys import redact
from farmhand.core.money import usd
from farmhand.core.trace_context import with_trace
from farmhand.places.base import Order, Reply
from farmhand.wire import turn


def encode(order: Order) -> bytes:
    """Return the turn for `jada-agent turn`; the order's tasks are already JSON."""
    head: dict[str, Any] = {"batch": order.batch, "cancel": order.cancel, "key": order.credential, "stop": order.stop}
    head |= {"after": order.cursor, "low": order.low, "wait_s": order.wait_s}
    if order.limit is not None:
        # The wire has US$ as a number of JSON, which is read by its decimal digits.
        most = None if order.limit.pico is None else float(usd(order.limit.pico))
        head["limits"] = {"max_usd": most, "concurrency": order.limit.concurrency}
    tasks = [with_trace(task, order.trace) for task in order.tasks]
    return json.dumps(head).encode()[:-1] + b',"tasks":[' + b",".join(tasks) + b"]}"


def decode(answer: bytes, worker: str) -> Reply:
    """Return the answer of `worker` to a turn. An answer that is not of the wire becomes a reply with that error."""
    try:
        return reply(turn.check(answer, worker), worker)
    except WireError as error:
        return Reply(error=error.at())


def reply(given: dict[str, Any], worker: str) -> Reply:
    """Return the reply in a checked answer of `worker`."""
    lists: dict[str, Any] = {
        name: given.get(name) or [] for name in ("cancelled", "refused", "stopped", "results", "waiting")
    }
    return Reply(
        accepted=given.get("taken") or [],
        **lists,
        next=given.get("next") or 0,
        rest=bool(given.get("rest")),
        unfinished=given.get("unfinished"),
        slots=sum(int(engine["total"]) for engine in (given.get("slots") or {}).values()),
        halted=_error(given.get("halted"), worker),
        error=_error(given.get("error"), worker),
    )


def _error(said: dict[str, Any] | None, worker: str) -> FarmhandError | None:
    """Return the package's error for one in an answer."""
    if said is None:
        return None
    code, message = said["code"], said["message"]
    if code == "no_such_route":
        code, message = "agent_too_old", "its agent is too old for batches"
    if worker not in message:
        message = f"{worker}: {message}"
    return WireError(code, redact(message), redact(said.get("hint") or "")).at()
