"""Documentation of farmhand_count_tokens. The work is done by the action plugin of the same name: nothing runs on the
host but jada-agent.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: farmhand_count_tokens
short_description: Count the tokens of a task, without running it
description:
  - Has the provider count what a task would send, by its free endpoint, through the C(jada-agent) of the farm host.
    Nothing is run, charged or kept.
  - The API key is read on the controller by the action plugin of the same name and handed to the agent inside the
    connection's encrypted stream, for this one question. It is never an argument of this module.
  - How long an answer will be is not known before; V(max_tokens) of M(farmhand_task) limits it.
options:
  prompt:
    description: The prompt. Exactly one of O(prompt) and O(prompt_file) is needed.
    type: str
  prompt_file:
    description: A UTF-8 file on the controller with the prompt, as for M(farmhand_task).
    type: path
  system:
    description: System prompt.
    type: str
  model:
    description: V(haiku), V(sonnet), V(opus) or a full model id. Models count differently. The default is the current
      Haiku.
    type: str
  schema:
    description: JSON Schema that the answer would have to satisfy; it is sent with the prompt.
    type: dict
  files:
    description: Pictures (PNG, JPEG, GIF, WebP) and PDFs on the controller that go with the prompt.
    type: list
    elements: path
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
    description: The tokens are counted as well, because that changes nothing.
  diff_mode:
    support: none
    description: There is nothing that could differ.
  idempotent:
    support: full
    description: It never changes anything.
author: Farmhand
"""

EXAMPLES = r"""
- name: How large is the log?
  farmhand_count_tokens:
    prompt_file: /var/log/app/today.log
  register: log

- name: Summarise it, unless it is too large
  farmhand_task:
    prompt_file: /var/log/app/today.log
    system: Summarise this log in five lines.
  when: log.input_tokens < 50000
"""

RETURN = r"""
input_tokens: {description: "What would be sent, in tokens.", type: int, returned: success}
model: {description: "The full id of the model that they are counted for.", type: str, returned: success}
error: {description: "Code, message and hint of a failure.", type: dict, returned: on failure}
"""
