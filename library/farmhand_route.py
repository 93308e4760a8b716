#!/usr/bin/python
"""Ansible module: the way that claude-cheap takes to a farm host. All of it is done by the action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: farmhand_route
short_description: Find the way that claude-cheap takes to a farm host
description:
  - Tells from Ansible's own connection (C(ansible_host), C(ansible_port), C(ansible_ssh_common_args),
    C(ansible_ssh_extra_args), C(ansible_ssh_args), from wherever they are set) what C(claude-cheap) has to give to its
    ssh to take the same way. What only concerns the login of Ansible is left out.
  - Runs on the controller, where the workstation is, and changes nothing.
options:
  address:
    description: Another address than the one that Ansible connects to, or an alias of C(~/.ssh/config). Nothing of
      Ansible's own arguments is taken with it.
    type: str
    default: ""
  port:
    description: Another port. With 0 it is Ansible's, or the one that ssh's configuration says.
    type: int
    default: 0
  known_hosts_file:
    description: The known_hosts file. Default - that of the options, or ssh's own.
    type: str
    default: ""
  probe:
    description: Go there as far as the login, which needs no account, and fail where the way does not lead there.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: It changes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
author: Farmhand
"""

EXAMPLES = r"""
- name: Claude-cheap gets there as well
  farmhand_route:
    probe: true
"""

RETURN = r"""
entry:
  description: C(address), and where there are any C(port), C(options) and C(ssh_config), as in C(hosts.json).
  type: dict
  returned: success
probed: {description: "Whether it went there; it does only where Ansible uses ssh.", type: bool, returned: success}
error: {description: "Code, message and hint of a failure.", type: dict, returned: on failure}
"""
