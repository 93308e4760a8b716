#!/usr/bin/python
from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.farmhand.plugins import search

DOCUMENTATION = r"""
module: farmhand_search
short_description: Look for API keys and login tokens anywhere on a host
description:
  - Looks for C(sk-ant-…) keys in files, in the environment and the arguments of all processes, and in the journal.
  - Changes nothing. Names the places, never what was found there.
options:
  ignore:
    description: Directories that are left out, such as the one with the originals that M(farmhand_scrub) keeps.
    type: list
    elements: path
    default: []
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
- name: No key is anywhere on the host
  farmhand_search:
    ignore: [/var/backups/farmhand]
  register: search
  failed_when: search.places | length > 0
"""

RETURN = r"""
places:
  description: Files, processes (with the part that holds a key), and the journal.
  returned: always
  type: list
  elements: str
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={"ignore": {"type": "list", "elements": "path", "default": []}}, supports_check_mode=True
    )
    places = [*search.files(ignored=module.params["ignore"]), *search.processes()]
    try:
        if search.journal():
            places.append("the journal")
    except OSError as error:
        module.fail_json(msg=f"cannot read the journal: {error.strerror}; is systemd-journald running?")
    module.exit_json(changed=False, places=places, msg=f"{len(places)} places hold a key" if places else "no key found")


if __name__ == "__main__":
    main()
