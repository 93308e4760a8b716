"""For programs that run Ansible on this machine: its modules run in forks, with boto3 loaded. Look into the plugins."""

from __future__ import annotations

from pathlib import Path

_PLUGINS = str(Path(__file__).with_name("ansible_plugins"))
#: Variables of ansible-playbook, and of what starts it.
FORKED = {"ANSIBLE_CONNECTION_PLUGINS": _PLUGINS, "ANSIBLE_CALLBACK_PLUGINS": _PLUGINS}
FORKED_WITH_BOTO3 = FORKED | {"FARMHAND_TESTS_LOAD": "tests.support.aws_loaded"}
_ROOT = Path(__file__).parents[2]


def checkout(directory: Path, *settings: str) -> Path:
    """The checkout, for commands that leave out Ansible's variables: its ansible.cfg has these lines besides."""
    directory.mkdir()
    for name in ("action_plugins", "aws", "filter_plugins", "inventory", "library", "playbooks", "roles", "site.yml"):
        (directory / name).symlink_to(_ROOT / name)
    text = (_ROOT / "ansible.cfg").read_text().replace("module_utils = src", f"module_utils = {_ROOT}/src")
    (directory / "ansible.cfg").write_text(text.replace("[defaults]\n", "\n".join(("[defaults]", *settings, ""))))
    return directory


def forked_checkout(directory: Path) -> Path:
    """The checkout, with modules in forks."""
    return checkout(directory, f"connection_plugins = {_PLUGINS}", f"callback_plugins = {_PLUGINS}")
