"""Documentation of farmhand_drain. The work is done by the action plugin of the same name: nothing runs on the host but
jada-agent.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: farmhand_drain
short_description: Take a farm host out of service, and back
description:
  - Tells the C(jada-agent) of the farm host to take no new task, and waits until it is empty.
  - The action plugin of the same name waits in short rounds, says after each what is left, and brings the API key to
    tasks that await one. The key is never an argument of this module.
  - A drained agent is back in service after a restart.
options:
  mode:
    description: V(queue) refuses new tasks and finishes all that are there; V(running) starts none of the queued ones
      and lets those end that run, the others stay queued; V(off) is back in service.
    type: str
    choices: ["off", queue, running]
    default: queue
  wait_s:
    description: How long to wait until the host is empty, in seconds. If it is not by then, or cannot be, the module
      fails. With 0 it does not wait, and says what is left.
    type: float
    default: 0
  key_source:
    description: Where the controller finds the API key, as for M(farmhand_task).
    type: str
  socket:
    description: The agent's Unix socket on the host.
    type: path
    default: /run/jada-agent/agent.sock
attributes:
  check_mode:
    support: full
    description: The agent is asked for its mode and its tasks; it is told nothing and not waited for.
  diff_mode:
    support: full
  idempotent:
    support: full
author: Farmhand
"""

EXAMPLES = r"""
- name: Empty the host within ten minutes
  farmhand_drain:
    wait_s: 600

- name: Back into service
  farmhand_drain:
    mode: "off"
"""

RETURN = r"""
mode: {description: "The mode that was asked for.", type: str, returned: success}
before: {description: "The mode before.", type: str, returned: success}
version: {description: "The agent's version.", type: str, returned: success}
left: {description: "Unfinished tasks by state: C(running), C(queued), C(awaiting_key).", type: dict, returned: success}
empty: {description: "Whether nothing is left that O(mode) waits for.", type: bool, returned: success}
stuck: {description: "Whether all that is left awaits a key.", type: bool, returned: success}
error: {description: "Code, message and hint of a failure.", type: dict, returned: on failure}
"""
