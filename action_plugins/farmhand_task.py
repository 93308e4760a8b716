"""Action plugin of farmhand_task: runs one task through `jada-agent task` on the host.

The task and the API key are sent to its stdin, through any connection (ssh, local, docker; with or without become). So
the key is in no argument vector, no environment, no file, no log and no artifact.

With `orders` it runs one turn of `farmhand batch` instead: it fetches an order from that socket of the controller, runs
it with `jada-agent turn` on the host in the same way, and sends the answer back. It returns whether more turns follow.
"""

from __future__ import annotations

import json
import sys
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

# The checkout with this plugin also has the package: the versions match, and nothing needs to be installed.
_SOURCE = Path(__file__).resolve().parent.parent / "src"
if (_SOURCE / "farmhand").is_dir() and str(_SOURCE) not in sys.path:
    sys.path.insert(0, str(_SOURCE))

try:
    from farmhand.core.errors import FarmhandError, WireError
    from farmhand.core.keys import redact
    from farmhand.core.trace_context import of_caller
    from farmhand.plugins import handover
    from farmhand.plugins.arguments import arguments
    from farmhand.plugins.task import failure, read_files, task_of
    from farmhand.wire.turn import MAX_ANSWER_BYTES
except ModuleNotFoundError as missing:
    raise AnsibleError(f"farmhand_task: {missing}") from None

#: Connections last as long as this process, which runs all turns of its host.
_CONNECTIONS: dict[str, Connection] = {}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Run one task, or one turn of a batch."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the task's result; every failure is one line in `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if result.get("skipped"):
            return result
        try:
            given = arguments(self, __file__)
            agent = handover.agent_of(self, given["socket"], task_vars)
            if given["orders"] is not None:
                # str, because multiprocessing does not take Ansible's tagged text for an address.
                return result | self._turn(agent, str(given["orders"]), task_vars or {})
            read_files(given, self._find_needle)
            task = task_of(given)
            result["id"] = task["id"]
            answer = self._run(agent, task, given["key_source"], task_vars)
        except FarmhandError as error:
            return result | {"failed": True, "msg": str(error), "error": error.as_dict()}
        problem = failure(answer)
        return result | answer | ({} if problem is None else {"failed": True, "msg": problem})

    def _run(
        self, agent: handover.HostAgent, task: dict[str, Any], source: str | None, task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Return the answer of `jada-agent task`. Raise FarmhandError."""
        conf = handover.operators_settings(source, task)
        if self._task.check_mode:
            return agent.run_task({"task": task, "check": True})
        task = task | of_caller(conf.otel_endpoint)
        return agent.run_task({"task": task, "key": handover.key_for_task(task, conf, task_vars)})

    def _turn(self, agent: handover.HostAgent, path: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run one turn of a batch; `more` is whether another one follows."""
        hosts = len(task_vars.get("ansible_play_hosts_all") or [agent.host])
        try:
            batch = _CONNECTIONS.get(path) or _CONNECTIONS.setdefault(path, Client(path))
            batch.send_bytes(json.dumps({"host": agent.host, "hosts": hosts}).encode())
            order = batch.recv_bytes()
            if not order:  # the batch is over
                return {"changed": False, "more": False}
            # One byte more than the limit suffices to detect an answer that is too long.
            batch.send_bytes(_play(agent, order)[: MAX_ANSWER_BYTES + 1])
        except EOFError:
            return {"changed": False, "more": False}
        except OSError as error:
            raise WireError("batch_gone", f"farmhand batch has gone: {error}", "run it again: it goes on") from None
        return {"changed": True, "more": True}


def _play(agent: handover.HostAgent, order: bytes) -> bytes:
    """Return the answer of the host to the order, or an error if the host does not answer."""
    try:
        return agent.turn(order)
    except WireError as error:
        problem = error
    except AnsibleConnectionFailure as error:
        said = redact(" ".join(str(error.message).split()))
        problem = WireError("unreachable", f"{agent.host}: {said}", "check the inventory and ssh")
    except Exception as error:  # Connection and become plugins raise any type.
        said = redact(" ".join(str(error).split()))
        message = f"{agent.host}: Ansible cannot use its variables: {said}"
        problem = WireError("unreachable", message, "check the inventory")
    return json.dumps({"error": problem.as_dict()}).encode()
