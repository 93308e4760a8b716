"""Which shells are asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.billing.kinds import to_ask


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A home and a system's root, both without any file, and a fish among the programs."""
    home, root = tmp_path / "home", tmp_path / "root"
    for directory in (home, root / "etc/fish/conf.d", tmp_path / "bin"):
        directory.mkdir(parents=True)
    (tmp_path / "bin/fish").write_text("#!/bin/sh\n")
    (tmp_path / "bin/fish").chmod(0o755)
    return home, root


def asked(home: Path, root: Path) -> set[str]:
    environ = {"PATH": str(home.parent / "bin")}
    return {kind.shell for kind in to_ask(home, environ, "/bin/none", root)}


@pytest.mark.parametrize(
    ("name", "text", "is_asked"),
    [
        ("etc/fish/config.fish", "# Put system-wide fish configuration entries here\n\n", False),
        ("etc/fish/config.fish", "  # a comment\nset -gx EDITOR vi\n", True),
        ("etc/fish/conf.d/keys.fish", "set -gx A 1\n", True),
    ],
)
def test_a_shell_with_nothing_to_read_is_not_asked(
    machine: tuple[Path, Path], name: str, text: str, is_asked: bool
) -> None:
    home, root = machine
    assert "fish" not in asked(home, root)
    (root / name).write_text(text)
    assert ("fish" in asked(home, root)) is is_asked


def test_a_shell_with_a_file_of_the_home_is_asked(machine: tuple[Path, Path]) -> None:
    home, root = machine
    (home / ".config/fish/completions").mkdir(parents=True)
    assert "fish" not in asked(home, root)
    (home / ".config/fish/fish_variables").touch()
    assert "fish" in asked(home, root)
