"""One task on a farm host for a caller elsewhere: `jada-agent task`, which Ansible's plugin farmhand_task starts there.

A call is a JSON object on stdin: task, key, check (only say what would happen; needs no key). The answer is one on
stdout: the task's result with `changed`, or `error`. A caller that goes away takes its task with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
from typing import IO, Any

from farmhand.core.errors import WireError
from farmhand.wire.client import Client
from farmhand.wire.follow import FINAL_STATES, run_task
from farmhand.wire.message import decoded
from farmhand.wire.schema import MAX_BYTES, TaskCallAnswer
from farmhand.wire.transport import Transport, UnixTransport

#: Goes before the answer, since a chatty login may say something first.
MARK = "FARMHAND-TASK "
#: Nothing else is passed on: Ansible would take `add_host` or `ansible_facts` in a result for orders.
_ANSWER_FIELDS = {*TaskCallAnswer.__struct_fields__} - {"done_no"}


def predict(client: Client, task: dict[str, Any]) -> dict[str, Any]:
    """Return what `perform` would, as far as that is known, without running anything. Raises WireError."""
    client.connect()
    try:
        known = client.task(task["id"])
    except WireError as error:
        if error.code != "no_such_task":
            raise
        # Empty and not missing, so that a playbook that goes on with the answer can be checked to its end.
        return {"changed": True, "id": task["id"], "text": "", "structured": None}
    return {"changed": known.get("state") not in FINAL_STATES, **known}


def perform(client: Client, task: dict[str, Any], key: str) -> dict[str, Any]:
    """Run the task to its end: its result with `changed`, false if the result was there before. Raises WireError."""
    states = client.submit([task], key)
    if states and states[0].get("state") in FINAL_STATES:
        return {"changed": False, **client.task(task["id"])}
    return {"changed": True, **run_task(client, task, key, lambda _event: None)}


def cancel_when_unheard(transport: Transport, task_id: str, output: int = 1) -> None:
    """From now on stop the task, and this process, once nobody reads `output` any more or a signal asks for it.

    That is how Ctrl-C on the controller arrives here: over ssh as a closed pipe, with a local connection as SIGINT.
    """

    def stop(*_: object) -> None:
        with contextlib.suppress(WireError), Client(transport) as client:
            client.cancel(task_id)
        os._exit(1)

    def watch() -> None:
        poll = select.poll()
        # No event is asked for: a reader that has gone is reported all the same.
        poll.register(output, 0)
        poll.poll()
        stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    threading.Thread(target=watch, name="hang-up", daemon=True).start()


def main(socket: str, source: IO[bytes], target: IO[bytes]) -> int:
    """Read a call, do what it says, write its answer."""
    agent = UnixTransport(socket)
    try:
        call = json.loads(source.read())
        task, check = dict(call["task"]), bool(call.get("check"))
        if not check:
            cancel_when_unheard(agent, str(task["id"]))
        with Client(agent) as client:
            answer = predict(client, task) if check else perform(client, task, str(call["key"]))
    except (ValueError, KeyError, TypeError) as error:
        answer = {"error": WireError("invalid_call", f"not a call: {type(error).__name__}").as_dict()}
    except WireError as error:
        answer = {"error": error.as_dict()}
    target.write(f"{MARK}{json.dumps(answer, separators=(',', ':'))}\n".encode("ascii"))
    target.flush()
    return 0


def parse(output: str, host: str) -> dict[str, Any] | None:
    """The answer in what `jada-agent task` printed on `host`; None without one. Raises WireError `bad_answer`."""
    _, mark, rest = output.partition(MARK)
    if not mark:
        return None
    answer: dict[str, Any] = decoded(
        rest.partition("\n")[0].encode("utf-8", "replace"), host, TaskCallAnswer, MAX_BYTES
    )
    return {name: value for name, value in answer.items() if name in _ANSWER_FIELDS}
