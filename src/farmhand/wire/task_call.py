"""One task on a farm host for a remote caller: `jada-agent task`, started there by Ansible's plugin farmhand_task.

A call is a JSON object on stdin: task, key, check (only predict the outcome; needs no key). The answer is a JSON object
on stdout: the task's result with `changed`, or `error`. The task is cancelled when its caller disconnects.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import IO, Any

import msgspec

from farmhand.core.errors import WireError
from farmhand.core.keys import Credential, redact
from farmhand.core.task import Task
from farmhand.wire import message
from farmhand.wire.client import Client
from farmhand.wire.decode import MAX_BYTES
from farmhand.wire.follow import FINAL_STATES, run_task
from farmhand.wire.requests import TaskCall
from farmhand.wire.schema import TaskCallAnswer
from farmhand.wire.transport import Transport, UnixTransport

MARK = "FARMHAND-TASK "
#: No other field is passed on: Ansible would act on `add_host` or `ansible_facts` in a result.
_ANSWER_FIELDS = {*TaskCallAnswer.__struct_fields__} - {"finish_seq"}


def predict(client: Client, task: dict[str, Any]) -> dict[str, Any]:
    """Return the probable result of `perform` without running anything. Raise the WireError that it would raise."""
    if not client.check([task]):
        # Empty and not missing, so that check mode can evaluate the rest of a playbook that uses the answer.
        return {"changed": True, "id": task["id"], "text": "", "structured": None}
    known = client.task(task["id"])
    return {"changed": known.get("state") not in FINAL_STATES, **known}


def perform(client: Client, task: dict[str, Any], key: Credential) -> dict[str, Any]:
    """Run the task and return its result with `changed`, false if the result existed before. Raise WireError."""
    states: list[str] = []
    result = run_task(client, task, key, lambda _event: None, on_state=states.append)
    return {"changed": states[0] not in FINAL_STATES, **result}


def cancel_when_unheard(transport: Transport, task_id: str, output: int = 1) -> None:
    """From now on cancel the task and exit when `output` has no reader any more or a signal arrives.

    Ctrl-C on the controller arrives as a closed pipe over ssh, and as SIGINT with a local connection.
    """

    def stop(*_: object) -> None:
        with contextlib.suppress(WireError), Client(transport) as client:
            client.cancel(task_id)
        os._exit(1)

    def watch() -> None:
        poll = select.poll()
        poll.register(output, 0)  # a closed read end is reported without being asked for
        poll.poll()
        stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    threading.Thread(target=watch, name="hang-up", daemon=True).start()


def main(socket: str, source: IO[bytes], target: IO[bytes]) -> int:
    """Read a call, carry it out and write its answer."""
    agent = UnixTransport(socket)
    try:
        call = msgspec.json.decode(source.read(), type=TaskCall)
        task = msgspec.json.decode(call.task, type=Task)
        fields: dict[str, Any] = msgspec.json.decode(call.task)
        if not call.check and not call.key:
            raise ValueError("key is missing")
        if not call.check:
            cancel_when_unheard(agent, task.id)
        with Client(agent) as client:
            answer = predict(client, fields) if call.check else perform(client, fields, call.key)
    except (ValueError, RecursionError) as error:
        answer = {"error": WireError("invalid_call", f"not a call: {redact(str(error))}").as_dict()}
    except WireError as error:
        answer = {"error": error.as_dict()}
    target.write(message.marked(MARK, answer))
    target.flush()
    return 0


def parse(output: str, host: str) -> dict[str, Any] | None:
    """Return the answer in the output of `jada-agent task` on `host`, or None. Raise WireError `bad_answer`."""
    said = message.unmarked(MARK, output)
    if said is None:
        return None
    answer = message.decoded(said, host, TaskCallAnswer, MAX_BYTES)
    return {name: value for name, value in answer.items() if name in _ANSWER_FIELDS}
