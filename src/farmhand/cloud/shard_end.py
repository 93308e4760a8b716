"""The end of a shard: its last parts, its lease, a refused credential."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from farmhand.cloud.calls import CallFailed, ContainerTable
from farmhand.cloud.credential import FEDERATED, HeldCredential
from farmhand.cloud.ending import say
from farmhand.cloud.shard_world import ShardWorld
from farmhand.core import billing_refusals, leases
from farmhand.core.errors import WireError
from farmhand.core.shard import EXIT_LEFT, EXIT_REFUSED, EXIT_STOPPED
from farmhand.wire.client import Client
from farmhand.wire.transport import Transport

#: Seconds that the last parts have if no SIGTERM limits them. It leaves this part of its time for what comes after.
CLOSE_S = 600.0
_SPARE = 24
#: The error of a task whose text has the credential in it.
KEY_IN_TASK = {
    "code": "key_in_task",
    "message": "the task has the API key in its text: it would be sent to the model",
    "hint": "take it out, and rotate the key",
}


def close(world: ShardWorld, code: int, *, whole: bool) -> int:
    """Write the last parts, settle the lease, end the daemon. Return the exit code.

    `whole`: every task has ended, so the ledger has all that was spent.
    """
    try:
        world.writer.flush(world.rows.part)
    except WireError as error:
        say(f"the agent's ledger: {error}")
        world.writer.flush(lambda: b"")
        whole = False
    lease, rows = world.lease, world.rows
    spent = min(rows.spent, lease.held) if not (whole and rows.known) else rows.spent
    uncertain = rows.uncertain if whole and rows.known else lease.held - spent
    with _told():
        lease.settle(spent, uncertain)
    latest = time.monotonic() + CLOSE_S
    unsaved = world.writer.close(lambda: min(latest, world.clock.until - world.clock.kill_s / _SPARE))
    for task_id in unsaved:
        say(f"unsaved {task_id}")
    world.agent.stop(max(0.5, min(5.0, world.clock.until - time.monotonic() - 1)))
    return EXIT_LEFT if unsaved and not code else code


def failed(task_id: str, error: dict[str, Any]) -> dict[str, Any]:
    """Return the result, as on the wire, of a task that did not start; `error` has code, message, hint."""
    kept = {name: str(error.get(name) or "") for name in ("code", "message", "hint")}
    return {"id": task_id, "state": "failed", "text": "", "cost_usd": 0, "attempts": 0, "error": kept}


def refusal_code(transport: Transport, ids: list[str]) -> str:
    """Return the API's code for its refusal of the key, as the daemon tells it of a waiting task."""
    with contextlib.suppress(WireError), Client(transport) as client:
        for task_id in ids[:50]:
            event = next(iter(client.events(task_id)), {})
            if event.get("state") == "awaiting_key" and event.get("reason"):
                return str(event["reason"])
            client.close()
    return "authentication_error"


def refused(table: ContainerTable, environment: str, credential: HeldCredential, reason: str, detail: str) -> int:
    """Stop the batch because the API refuses the key, or serves its account no more. Return the exit code.

    A refused credential is noted. If another one has taken its place meanwhile, another attempt gets that one, and
    nothing else stops.
    """
    if reason in billing_refusals.HINTS:
        with _told():
            table.stop(reason, detail)
        return EXIT_STOPPED
    noted = True
    if credential.kind != FEDERATED:  # of a federation nothing is stored, so there is no item to note it in
        arguments = leases.refuse_credential(environment, credential.kind, credential.fingerprint, int(time.time()))
        with _told():
            noted, _ = table.update(arguments)
    if not noted:
        say("the credential was replaced while this container ran: another attempt has the new one")
        return EXIT_LEFT
    with _told():
        table.stop("credential", detail)
    return EXIT_REFUSED


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Write a failed call to the log, and go on."""
    try:
        yield
    except CallFailed as error:
        say(str(error))
