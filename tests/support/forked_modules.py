"""For programs that run Ansible on this machine: its modules run in forks, with boto3 loaded. Look into the plugins."""

from __future__ import annotations

from pathlib import Path

_PLUGINS = str(Path(__file__).with_name("ansible_plugins"))
#: Variables of ansible-playbook, and of what starts it.
FORKED = {"ANSIBLE_CONNECTION_PLUGINS": _PLUGINS, "ANSIBLE_CALLBACK_PLUGINS": _PLUGINS}
FORKED_WITH_BOTO3 = FORKED | {"FARMHAND_TESTS_LOAD": "tests.support.aws_loaded"}
