"""The claude CLI: the pinned version, alone, and not updating itself."""

from __future__ import annotations

import json

from testinfra.host import Host

VERSION = "2.1.330"


def test_version(host: Host) -> None:
    assert host.check_output("HOME=/nonexistent claude --version").startswith(f"{VERSION} ")


def test_link(host: Host) -> None:
    link = host.file("/usr/bin/claude")
    assert link.is_symlink
    assert link.linked_to == f"/usr/lib/claude-code/{VERSION}/claude"
    binary = host.file(link.linked_to)
    assert (binary.user, binary.group, binary.mode) == ("root", "root", 0o755)


def test_nothing_else_is_kept(host: Host) -> None:
    """The side effect asked for one version at last; the download's place is gone as well."""
    assert sorted(host.check_output("ls -A /usr/lib/claude-code").split()) == [VERSION]


def test_update_is_off(host: Host) -> None:
    settings = json.loads(host.file("/etc/claude-code/managed-settings.json").content_string)
    assert settings["env"]["DISABLE_AUTOUPDATER"] == "1"
