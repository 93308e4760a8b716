"""What counts as a test for what the asking itself makes different."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.billing import guarded
from farmhand.billing.verdict import Location, Setting

K = "ANTHROPIC_API_KEY"


def found(directory: Path, text: str, shell: str, line: int, name: str = K) -> tuple[str, Location] | None:
    path = directory / "rc"
    path.write_text(text)
    setting = Setting(name, "x", Location(path, line), "export")
    return guarded.find([setting], [path], shell, {}, {})


@pytest.mark.parametrize(
    ("shell", "text", "line"),
    [
        ("bash", "[ -t 1 ] && export K=x\n", 1),
        ("bash", "test -t 0 || return\nexport K=x\n", 2),
        ("bash", "case $(tty) in /dev/tty1) export K=x ;; esac\n", 1),
        ("bash", "if tty -s; then\n  A=1\n  export K=x\nfi\n", 3),
        ("bash", 'if [ -n "${TMUX-}" ]; then\n  return\nfi\nexport K=x\n', 4),
        ("zsh", "(( $+ZELLIJ )) || export K=x\n", 1),
        ("zsh", "[[ -n $ZSH_EXECUTION_STRING ]] || { export K=x }\n", 1),
        ("zsh", "if [[ $options[zle] = on ]]; then\n  export K=x\nfi\n", 2),
        ("zsh", "[[ -o zle ]] && export K=x\n", 1),
        ("fish", "if isatty stdin\n  set -gx K x\nend\n", 2),
        ("fish", "test -z $TMUX; and set -gx K x\n", 1),
        ("fish", "not set -q TMUX\nor exit\nif not isatty; exit; end\nset -gx K x\n", 4),
    ],
)
def test_what_stands_behind_one_is_not_passed_over(tmp_path: Path, shell: str, text: str, line: int) -> None:
    why, at = found(tmp_path, text, shell, line) or ("", Location(None))
    assert why == guarded.WHY
    assert at.line == line
    assert found(tmp_path, text, shell, line, "CLAUDE_CODE_OAUTH_TOKEN") is None


@pytest.mark.parametrize(
    ("shell", "text", "line"),
    [
        ("bash", "export GPG_TTY=$(tty)\n[ -z $A ] && return\nexport K=x\n", 3),
        ("bash", "if [ -z $A ]; then\n  export GPG_TTY=`tty`\n  export K=x\nfi\n", 3),
        ("bash", "# [ -t 1 ] || return\nexport K=x\n", 2),
        ("bash", "read -t 1 a || return\nexport K=x\n", 2),
        ("bash", "[ -t 1 ] && A=1\n[ -z $A ] && return\nexport K=x\n", 3),
        ("bash", "[ -z $A ] && export K=x\n[ -t 1 ] || return\n", 1),
        ("zsh", "f() {\n  [[ -t 1 ]] || return\n  export K=x\n}\n", 3),
        ("fish", "set -gx GPG_TTY (tty)\nif set -q A\n  exit\nend\nset -gx K x\n", 5),
    ],
)
def test_what_has_nothing_to_do_with_one(tmp_path: Path, shell: str, text: str, line: int) -> None:
    assert found(tmp_path, text, shell, line) is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[ -t 1 ] && exec fish\n", 1),
        ('if [ -z "$BASH_EXECUTION_STRING" ]; then\n  exec -l /usr/bin/zsh\nfi\n', 2),
        ('[ -t 1 ] && exec fish -c "$BASH_EXECUTION_STRING"\n', None),
        ("[ -z $TMUX ] && exec tmux\n", None),
        ("[ -z $A ] && exec fish\n", None),
    ],
)
def test_another_shell_that_takes_over(tmp_path: Path, text: str, line: int | None) -> None:
    (tmp_path / "rc").write_text(text)
    said = guarded.find([], [tmp_path / "rc"], "bash", {}, {})
    assert said == (None if line is None else (guarded.WHY_OTHER, Location(tmp_path / "rc", line)))
