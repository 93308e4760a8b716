#!/usr/bin/python
from __future__ import annotations

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.farmhand.billing.keyfile import ChangeRefused
from ansible.module_utils.farmhand.billing.outcome import absent, present
from ansible.module_utils.farmhand.billing.store import Store
from ansible.module_utils.farmhand.billing.wanted import Wanted

DOCUMENTATION = r"""
module: farmhand_billing
short_description: Keep metered credentials out of an interactive claude
description:
  - Starts the shells of the user that the module runs as (bash, zsh, fish and sh; login, interactive and both) as a
    terminal does, as M(farmhand_billing_facts) does, and sees which metered credentials, provider switches and base
    URLs reach C(claude), and which file and line sets them. The session's files and the CLI's settings are read.
    Shells are never started for another user than the one whose home it is.
  - A statement of a start-up file that is nothing but such a setting becomes a comment with the reason and the date.
    After every other one, one C(unset) is put where the shell is at top level again, or at the end of the start-up
    file. Everything else stays byte for byte. A file that its shell refuses, before or after, is not changed.
  - Then the shells are asked again. An edit after which the name still reaches C(claude) from there is taken back, byte
    for byte, and is not tried again until one of its files has changed. RV(left) says what stays and what to do.
  - Moves a key that stands in a file into O(key_file), mode 0600, whose other content is kept. That file is parsed,
    never run. What a program prints (a password manager) is never written down.
  - The originals are kept in O(state_dir) (0600); O(state=absent) takes everything back.
  - What cannot be changed safely is left alone and reported with the reason (a file that its shell would refuse, a file
    of somebody else, a read-only one, a link out of the home directory, the running session, the project's own files,
    a hook of the prompt, a function or an alias that runs when C(claude) is typed).
options:
  state:
    description: C(present) takes the credentials out, C(absent) takes back what this module changed.
    type: str
    choices: [present, absent]
    default: present
  home:
    description: The operator's home directory.
    type: path
    default: "~"
  key_file:
    description: Where the key is kept.
    type: path
    default: ~/repos.env
  key:
    description: Fingerprint of the key to keep when several different ones are found.
    type: str
    default: ""
  keep:
    description: Names of variables (or apiKeyHelper) that stay as they are.
    type: list
    elements: str
    default: []
  project_dir:
    description: The current project. Its files are reported; they are changed with O(edit_project) only.
    type: path
  edit_project:
    description: Change the project's own files as well.
    type: bool
    default: false
  ask_shell:
    description:
      - Start the shells, which runs their start-up files as every new terminal does. A variable marks such a start, see
        M(farmhand_billing_facts).
      - With V(false) nothing is started. The files are only read, what is said is a reading and no fact, only plain
        assignments are commented out, and nothing proves that this was enough.
    type: bool
    default: true
  state_dir:
    description: Where the originals and the journal are kept, mode 0700.
    type: path
    default: ~/.local/state/farmhand/workstation
author: [Farmhand]
attributes:
  check_mode:
    support: partial
    description:
      - Asks the shells once and says which edits it would begin with. Nothing is written and nothing else is run.
      - As nothing is written, it cannot ask again, so it cannot foresee which edits would be taken back, nor a setting
        that shows itself only once another one is gone. RV(billing) is then foreseen and not asked.
  diff_mode:
    support: full
    description: Shows the lines that change, values hidden; of the key file only the names.
  idempotent:
    support: full
    description: Where no metered credential reaches claude, and where what was tried did not help, nothing is changed.
"""

EXAMPLES = r"""
- name: Keep claude on the subscription
  farmhand_billing:
    project_dir: "{{ lookup('ansible.builtin.env', 'PWD') }}"

- name: Take everything back
  farmhand_billing:
    state: absent
"""

RETURN = r"""
edits:
  description:
    - Everything that was commented out, unset or taken out of settings, as C(NAME commented out in FILE:LINE), with the
      line of the file as it was before.
  returned: always
  type: list
  elements: str
moved:
  description: What was moved into the key file, as C(NAME (fingerprint) to FILE).
  returned: always
  type: list
  elements: str
files:
  description: The files that were (in check mode, would be) written.
  returned: always
  type: list
  elements: str
backups:
  description: The originals.
  returned: always
  type: list
  elements: str
left:
  description:
    - What still stands, each with the reason and what to do; every kind of shell in which something metered still
      reaches claude, and every one of which it cannot be told.
  returned: always
  type: list
  elements: str
hints:
  description: What else is worth knowing, one line each.
  returned: always
  type: list
  elements: str
billing:
  description: The facts of M(farmhand_billing_facts) as they are afterwards (in check mode, as they would be).
  returned: with state present
  type: dict
"""

SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "home": {"type": "path", "default": "~"},
    "key_file": {"type": "path", "default": "~/repos.env"},
    "key": {"type": "str", "default": "", "no_log": False},  # a fingerprint, no secret
    "keep": {"type": "list", "elements": "str", "default": []},
    "project_dir": {"type": "path"},
    "edit_project": {"type": "bool", "default": False},
    "ask_shell": {"type": "bool", "default": True},
    "state_dir": {"type": "path", "default": "~/.local/state/farmhand/workstation"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    given = module.params
    store = Store(Path(given["state_dir"]))
    wanted = Wanted(
        home=Path(given["home"]),
        key_file=Path(given["key_file"]),
        environ=os.environ,
        cwd=Path(given["project_dir"]) if given["project_dir"] else None,
        keep=given["keep"],
        chosen=given["key"],
        edit_project=given["edit_project"],
        ask_shell=given["ask_shell"],
        date=time.strftime("%Y-%m-%d"),
    )
    write = not module.check_mode
    try:
        outcome = present(wanted, store, write=write) if given["state"] == "present" else absent(store, write=write)
    except ChangeRefused as error:
        module.fail_json(msg=str(error))
    except ValueError as error:
        module.fail_json(msg=f"{store.journal} cannot be read: {error}; the originals beside it are whole")
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else f"{type(error).__name__} {error}".strip()
        module.fail_json(msg=f"{what}; correct that and run again (or with state absent)")
    module.exit_json(**outcome)


if __name__ == "__main__":
    main()
