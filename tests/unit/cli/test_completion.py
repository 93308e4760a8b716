"""The completion files: for each shell, written once, unchanged afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.cli.completion import hints, main


def test_files_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [f"--{shell}={tmp_path / shell}" for shell in ("bash", "zsh", "fish")]
    assert main([*argv, "--check"]) == 0
    expected = [
        *(f"{tmp_path}/bash/{name}" for name in ("claude-cheap", "farmhand")),
        *(f"{tmp_path}/zsh/{name}.zsh" for name in ("claude-cheap", "farmhand")),
        *(f"{tmp_path}/fish/{name}.fish" for name in ("claude-cheap", "farmhand")),
    ]
    assert capsys.readouterr().out.split() == expected
    assert not any(tmp_path.iterdir())
    assert main(argv) == 0
    assert capsys.readouterr().out.split() == expected
    assert main(argv) == 0
    assert capsys.readouterr().out == ""
    assert "_CLAUDE_CHEAP_COMPLETE=bash_complete" in (tmp_path / "bash/claude-cheap").read_text()


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([f"--bash={tmp_path / 'file' / 'deeper'}"]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/file/deeper: Not a directory\n"


def test_a_shell_that_does_not_complete_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    [bash] = hints(["bash", "zsh", "fish"])
    assert "bash-completion is missing, or ~/.bashrc does not read it" in bash
    (tmp_path / ".bashrc").write_text("_load() { :; }\ncomplete -D -F _load\n")
    (tmp_path / ".zshrc").write_text("")
    [zsh] = hints(["bash", "zsh", "fish"])
    assert "call compinit" in zsh
