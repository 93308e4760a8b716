"""Documentation of farmhand_task. The work is done by the action plugin of the same name: nothing runs on the host but
jada-agent.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: farmhand_task
short_description: Run one task on a farm host
description:
  - Gives a prompt to the C(jada-agent) of the farm host and waits for its answer.
  - The API key is read on the controller by the action plugin of the same name and handed to the agent inside the
    connection's encrypted stream. It is never an argument of this module.
  - The prompt is data. Ansible itself expands C({{ }}) in it before the module sees it; use O(prompt_file), or
    C(!unsafe) in a playbook, for text that may hold braces.
options:
  prompt:
    description: The prompt. Exactly one of O(prompt) and O(prompt_file) is needed.
    type: str
  prompt_file:
    description: A UTF-8 file on the controller with the prompt, which is taken as it is. C(~) is expanded, a relative
      path is looked for as C(ansible.builtin.copy) does.
    type: path
  id:
    description: The task's id. The same id with the same task runs once, and is then answered with the same result.
    type: str
  system:
    description: System prompt.
    type: str
  model:
    description: V(haiku), V(sonnet), V(opus) or a full model id. The agent's default is the current Haiku.
    type: str
  engine:
    description: How the task reaches the model. V(auto) is V(cli) when O(tools) are asked for, V(api) otherwise.
    type: str
    choices: [auto, api, cli]
  tools:
    description: Tools of the claude CLI that the task may use.
    type: list
    elements: str
  network:
    description: What the task's tools reach. V(full) must be allowed on the host.
    type: str
    choices: [none, full]
  schema:
    description: JSON Schema that the answer must satisfy.
    type: dict
  max_tokens:
    description: Longest answer, in tokens.
    type: int
  timeout_s:
    description: The task's time in seconds, 0 for the host's own limit.
    type: float
  batch:
    description: Name of the batch that the task belongs to.
    type: str
  labels:
    description: Free text by name, given back with the result.
    type: dict
  files:
    description: Pictures (PNG, JPEG, GIF, WebP) and PDFs on the controller that go with the prompt, found as
      O(prompt_file) is. Their content says what they are.
    type: list
    elements: path
  max_usd:
    description: What the task may cost, in US dollars. What it may cost at most is reserved before anything is sent.
    type: float
  pot:
    description: The pot that pays, a table C([pots.NAME]) of C(config.toml). Default - the first, if there are any.
    type: str
  work_class:
    description: What kind of work it is, for the reports.
    type: str
  economy:
    description: Half the price through the provider's Message Batches. The answer may take up to a day.
    type: bool
  priority:
    description: Waiting tasks with a higher number run first; those of a batch have V(0).
    type: int
  key_source:
    description: Where the controller finds the API key - C(file:PATH[#NAME]), C(env:NAME), C(keyring:SERVICE/USER) or
      C(command:ARGV). The default is the operator's setting, C(file:~/repos.env) if there is none.
    type: str
  orders:
    description: A socket of C(farmhand batch) on the controller, which then says
      what to do. Not for playbooks of your own.
    type: path
  socket:
    description: The agent's Unix socket on the host.
    type: path
    default: /run/jada-agent/agent.sock
attributes:
  check_mode:
    support: full
    description: Nothing is run and no key is needed. The host is asked whether it would take the task, and whether the
      task's id has a result already; without O(id) the module always would run.
  diff_mode:
    support: none
  idempotent:
    support: partial
    description: With O(id) set, a second run is unchanged and returns the same result.
author: Farmhand
"""

EXAMPLES = r"""
- name: Ask the farm
  farmhand_task:
    prompt: Name three uses of a hay bale.
  register: answer

- name: Classify a log once, whatever the log holds
  farmhand_task:
    id: "log-2026-11-20"
    prompt_file: /var/log/app/today.log
    system: Answer with the worst severity that occurs in the log.
    schema: {type: object, properties: {severity: {enum: [ok, warning, error]}}, required: [severity]}

- name: A prompt with braces
  farmhand_task:
    prompt: !unsafe "What does {{ user.name | upper }} do in Jinja?"
"""

RETURN = r"""
id: {description: "The task's id.", type: str, returned: always}
state: {description: "V(succeeded), V(failed), V(cancelled) or V(awaiting_key).", type: str, returned: when known}
text: {description: "The answer, empty in check mode.", type: str, returned: success}
structured: {description: "The answer as O(schema) has it, else null.", type: raw, returned: success}
model: {description: "The full id of the model that answered.", type: str, returned: when run}
engine: {description: "The engine that ran it.", type: str, returned: when run}
usage: {description: "Tokens as the API counted them.", type: dict, returned: when run}
cost_usd: {description: "Cost in US dollars, null while the price is unknown.", type: float, returned: when run}
stop_reason: {description: "Why the model stopped: V(end_turn), V(max_tokens).", type: str, returned: when run}
attempts: {description: "How often its engine was started.", type: int, returned: when run}
retries: {description: "How many requests were sent again within these attempts.", type: int, returned: when run}
queued_s: {description: "Seconds in the queue.", type: float, returned: when run}
run_s: {description: "Seconds at work.", type: float, returned: when run}
error: {description: "Code, message and hint of a failure.", type: dict, returned: on failure}
"""
