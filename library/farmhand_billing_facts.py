#!/usr/bin/python
from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.farmhand.billing import find

DOCUMENTATION = r"""
module: farmhand_billing_facts
short_description: Tell who pays for an interactive claude, for each kind of shell
description:
  - Reads the start-up files of bash, zsh, fish and sh and what they source, the session's environment and the files
    that it comes from, the settings of the claude CLI, and the current project's C(.envrc) and C(.env). None of them is
    run.
  - For each kind of shell it says which credential the real CLI would use, by the CLI's documented precedence, and who
    is billed for it; for each setting of a metered credential the file and the line. No value is ever returned, only
    fingerprints.
options:
  home:
    description: The home directory to look into.
    type: path
    default: "~"
  project_dir:
    description: The current project, for its C(.claude/settings.json), C(settings.local.json), C(.envrc) and C(.env).
    type: path
  session:
    description: Count what the running session's environment holds, and ask systemd's user manager (or launchd).
    type: bool
    default: true
author: [Farmhand]
attributes:
  check_mode:
    support: full
    description: It only reads, in check mode and out of it.
  diff_mode:
    support: none
    description: Nothing changes.
  idempotent:
    support: full
    description: Nothing changes.
"""

EXAMPLES = r"""
- name: See who pays for claude in my shells
  farmhand_billing_facts:

- name: No metered key reaches an interactive claude
  ansible.builtin.assert:
    that: not farmhand_billing.metered
    fail_msg: "{{ farmhand_billing.summary }}"
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  returned: always
  type: dict
  contains:
    farmhand_billing:
      description: Who pays, and why.
      returned: always
      type: dict
      contains:
        metered:
          description: Whether any kind of shell would not run on the subscription alone.
          type: bool
        logged_in:
          description: Whether the CLI has a login.
          type: bool
        summary:
          description: One line.
          type: str
        shells:
          description: For each shell (bash, zsh, fish, sh) and mode (login, interactive, login interactive) the
            credential, who is billed (subscription, api_key, token, cloud, none), the source with its line, the key's
            fingerprint, whether that is certain, what the CLI's init event says (api_key_source), the headers that the
            API receives, and a base URL that is set.
          type: list
          elements: dict
        sources:
          description: Each setting of a metered credential, a provider's switch or a base URL, with path, line, how it
            is brought in, and the kinds of shell in which it reaches claude.
          type: list
          elements: dict
        hidden:
          description: Farmhand's commands that an alias or a function of the operator's hides, with its place.
          type: list
          elements: str
        problems:
          description: Files that could not be followed, with the line and the reason.
          type: list
          elements: dict
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "~"},
            "project_dir": {"type": "path"},
            "session": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    session = given["session"]
    project = Path(given["project_dir"]) if given["project_dir"] else None
    report = find(Path(given["home"]), os.environ if session else {}, project, ask=session)
    module.exit_json(changed=False, msg=report.line(), ansible_facts={"farmhand_billing": report.as_dict()})


if __name__ == "__main__":
    main()
