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
  - Starts the operator's real shells (bash, zsh, fish and sh that are installed and have start-up files; login,
    interactive, both), as a terminal does but without one, and looks at what C(claude), typed there, gets. Where the
    CLI is installed, C(claude auth status --json) is asked with it. Their start-up files are run, as in every terminal,
    always as the user whose home it is; E(FARMHAND_ASKING) is set, by which they can tell. A shell that is not ready
    after ten seconds is ended, with all that it left.
  - The session's environment and the files that it comes from, and the settings of the claude CLI, are read and not
    run.
  - For each kind of shell it says which credential the real CLI would use and who is billed for it; for each setting
    of a metered credential the file and the line, by the shell's own trace. No value is ever returned, only
    fingerprints. What could not be told is C(unknown).
options:
  home:
    description: The home directory to look into.
    type: path
    default: "~"
  project_dir:
    description: The current project, where the shells start, for its C(.claude/settings.json), C(settings.local.json),
      and for what direnv or mise bring in there.
    type: path
  session:
    description: Count what the running session's environment holds, and ask systemd's user manager (or launchd).
    type: bool
    default: true
  ask_shell:
    description: Start the shells. With C(false) nothing of the operator's is run; the files are read line by line, and
      every verdict is marked as a reading (C(how) is C(read)), which proves nothing.
    type: bool
    default: true
author: [Farmhand]
attributes:
  check_mode:
    support: full
    description: It does the same in check mode and out of it, and changes nothing itself.
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
    that: farmhand_billing.metered is false
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
          description: Whether any kind of shell would not run on the subscription alone; null where nothing metered was
            seen, but not every kind could be told, or files were only read.
          type: bool
        certain:
          description: Whether every verdict was seen.
          type: bool
        unknown:
          description: The kinds of shell of which nothing can be told.
          type: list
          elements: str
        logged_in:
          description: Whether the CLI has a login.
          type: bool
        summary:
          description: One line.
          type: str
        shells:
          description: For each kind of shell the credential, who is billed (subscription, api_key, token, cloud, none,
            gateway, unknown), how that is known (asked, read), the source with its line, the key's fingerprint, what
            the CLI says of itself (api_key_source), the headers that the API receives, a base URL that is set, and the
            operator's own gateway if claude asks that; where it is unknown the reason, and the line at which the shell
            stopped (stopped_at).
          type: list
          elements: dict
        asked:
          description: The password managers and the like that the start-up files ran, each of them once.
          type: list
          elements: str
        sources:
          description: Each setting of a metered credential, a provider's switch or a base URL, with path, line, how it
            is brought in, the kinds of shell in which it reaches claude, and what is wrong with a base URL (note).
          type: list
          elements: dict
        hidden:
          description: Farmhand's commands that an alias or a function of the operator's hides, with its place.
          type: list
          elements: str
        problems:
          description: Files that could not be read, with the line and the reason.
          type: list
          elements: dict
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "~"},
            "project_dir": {"type": "path"},
            "session": {"type": "bool", "default": True},
            "ask_shell": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    session = given["session"]
    project = Path(given["project_dir"]) if given["project_dir"] else None
    report = find(
        Path(given["home"]), os.environ if session else {}, project, ask=session, ask_shell=given["ask_shell"]
    )
    module.exit_json(changed=False, msg=report.line(), ansible_facts={"farmhand_billing": report.as_dict()})


if __name__ == "__main__":
    main()
