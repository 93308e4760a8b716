"""What prepare.yml left about is gone, the rest of each file is not, and the originals are root's alone."""

from __future__ import annotations

import pytest
from testinfra.host import Host

BACKUPS = "/var/backups/farmhand"


@pytest.mark.parametrize(
    ("path", "owner", "mode", "content"),
    [
        ("/etc/environment", "root", 0o644, "LANG=C.UTF-8\n"),
        ("/etc/profile.d/claude.sh", "root", 0o644, "export EDITOR=vi\n"),
        ("/home/visitor/.bashrc", "visitor", 0o640, "if [ -n \"$PS1\" ]; then\n  :\nfi\nalias ll='ls -l'\n"),
        ("/etc/ssh/sshd_config.d/50-visitor.conf", "root", 0o644, "AcceptEnv LANG\n"),
    ],
)
def test_only_the_credential_is_gone(host: Host, path: str, owner: str, mode: int, content: str) -> None:
    file = host.file(path)
    assert file.content_string == content
    assert (file.user, file.group, file.mode) == (owner, owner, mode)


def test_login_is_gone(host: Host) -> None:
    assert not host.file("/home/visitor/.claude/.credentials.json").exists
    assert host.file("/home/visitor/.claude").is_directory


def test_login_shells_have_no_credential(host: Host) -> None:
    names = host.check_output("su - visitor -s /bin/bash -c 'PS1=x; . ~/.bashrc; env'")
    assert "ANTHROPIC_" not in names
    assert "CLAUDE_" not in names


def test_originals_are_roots_alone(host: Host) -> None:
    directory = host.file(BACKUPS)
    assert (directory.user, directory.mode) == ("root", 0o700)
    originals = directory.listdir()
    assert len(originals) == 4
    for name in originals:
        original = host.file(f"{BACKUPS}/{name}")
        assert (original.user, original.mode) == ("root", 0o600)
