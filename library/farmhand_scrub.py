#!/usr/bin/python
from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.farmhand.plugins.scrub import Scrubber, places

DOCUMENTATION = r"""
module: farmhand_scrub
short_description: Remove API keys and logins from a host's login shells and homes
description:
  - Looks into the start-up files of all login shells (C(/etc/environment), C(/etc/profile.d), every account's rc files)
    for assignments of C(ANTHROPIC_API_KEY), C(ANTHROPIC_AUTH_TOKEN) and C(CLAUDE_CODE_OAUTH_TOKEN), for literal
    C(sk-ant-…) keys and for login files of the claude CLI.
  - Reports each with file and line, never with its value, and takes it out. The original is kept in O(backup_dir).
options:
  backup_dir:
    description: Where originals go. Made with mode 0700, owned by root. They still hold the credentials, so rotate
      these and then empty it.
    type: path
    default: /var/backups/farmhand
author: [Farmhand]
attributes:
  check_mode:
    support: full
    description: Looks at the same files and reports the same findings; only the write is left out.
  diff_mode:
    support: full
    description: Shows file, line and name of each credential; values are hidden.
  idempotent:
    support: full
    description: A host without credentials is not changed.
"""

EXAMPLES = r"""
- name: Remove API keys and logins from login shells and homes
  farmhand_scrub:
    backup_dir: /var/backups/farmhand
"""

RETURN = r"""
findings:
  description: What was found (and, outside of check mode, removed), as C(file:line - name). Never a value.
  returned: always
  type: list
  elements: str
backups:
  description: The originals that were kept.
  returned: always
  type: list
  elements: str
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={"backup_dir": {"type": "path", "default": "/var/backups/farmhand"}}, supports_check_mode=True
    )
    scrubber = Scrubber(Path(module.params["backup_dir"]), write=not module.check_mode)
    try:
        scrubber.run(places())
    except OSError as error:
        module.fail_json(msg=f"cannot scrub {error.filename}: {error.strerror}; correct that and run again")
    findings = [str(finding) for finding in scrubber.findings]
    msg = f"{len(findings)} credentials found"
    if scrubber.saved:
        where = module.params["backup_dir"]
        msg += f" and removed; the originals are in {where} (root only): rotate the credentials, then delete these"
    module.exit_json(
        changed=bool(findings),
        msg=msg if findings else "no credential found",
        findings=findings,
        backups=scrubber.saved,
        diff={"before": "".join(f"{finding}\n" for finding in findings), "after": ""},
    )


if __name__ == "__main__":
    main()
