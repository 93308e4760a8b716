"""What of a start-up file becomes a comment, where an `unset` goes, and what the real shells say of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from farmhand.billing.edit import Change, Script, no_answer, syntax_error

SH = ("bash", "zsh", "sh")
K = "ANTHROPIC_API_KEY"


def change(text: str, shell: str, line: int) -> tuple[str, int, int]:
    """What is done about `line`: (comment or unset, first line, last line)."""
    script = Script(text, shell)
    if found := script.assignment(line):
        return "comment", found.first, found.last
    span = script.statement(line)
    assert span is not None
    return "unset", *span


@pytest.mark.parametrize("shell", SH)
@pytest.mark.parametrize(
    ("text", "line", "done"),
    [
        ("export K=x\n", 1, ("comment", 1, 1)),
        ("K=x\n", 1, ("comment", 1, 1)),
        ("export K\n", 1, ("comment", 1, 1)),
        ("A=1\nexport K=x", 2, ("comment", 2, 2)),
        ("\texport  K='a b'  # why; not\n", 1, ("comment", 1, 1)),
        ("export K=x ;\r\nB=1\r\n", 1, ("comment", 1, 1)),
        ("command export K=$(cmd 'a; b' | tr -d \"\\n\" # not the end )\n)\nB=1\n", 1, ("comment", 1, 2)),
        ("export K=`cmd a; b`\n", 1, ("comment", 1, 1)),
        ("export K=${X:-$(cat ~/f || echo '#')} # c\n", 1, ("comment", 1, 1)),
        ('A=0\nexport K="a\nb"\nB=1\n', 3, ("comment", 2, 3)),
        ("export K=x \\\n  L=y \\\n  M=z\nB=1\n", 2, ("comment", 1, 3)),
        ("if a; then\n  if b; then\n    export K=x\n  fi\nfi\n", 3, ("comment", 3, 3)),
        ("case $x in\na) export A=1 ;;\n*)\n  export K=x\n  ;;\nesac\n", 4, ("comment", 4, 4)),
        ("f() {\n  export K=$1\n}\nf x\n", 2, ("comment", 2, 2)),
        ("export K=x; export B=1\n", 1, ("unset", 1, 1)),
        ("K=x cmd\n", 1, ("unset", 1, 1)),
        ("K=x && export K\n", 1, ("unset", 1, 1)),
        ("export K=x || true\n", 1, ("unset", 1, 1)),  # the text that is edited, from a start-up file; nothing runs it
        ("export K=x > /dev/null\n", 1, ("unset", 1, 1)),
        ("export K=x &\n", 1, ("unset", 1, 1)),
        ("if a; then export K=x; fi\n", 1, ("unset", 1, 1)),
        ("[ -f x ] && export K=x\n", 1, ("unset", 1, 1)),
        ("[ -f x ] &&\n  export K=x\nB=1\n", 2, ("unset", 1, 2)),
        ("[ -f x ] && # if it is there\n\n  export K=x\nB=1\n", 3, ("unset", 1, 3)),
        ("[ -f x ] && \\\n  export K=x\nB=1\n", 2, ("unset", 1, 2)),
        ("export K=$(pass x)\nif [ $? -ne 0 ]; then :; fi\n", 1, ("unset", 1, 1)),
        ("set -a\n. ~/.env\nset +a\n", 2, ("unset", 2, 2)),
        ('while read -r l; do\n  export "$l"\ndone < f\nB=1\n', 2, ("unset", 1, 3)),
        ('eval "$(cmd)"\n', 1, ("unset", 1, 1)),
        ("eval '\nexport K=x\n'\nB=1\n", 2, ("unset", 1, 3)),
        ("cat <<EOF\nexport K=x\nEOF\nB=1\n", 2, ("unset", 1, 3)),
        ("if a; then\ncat <<-'E)OF' | b\n\texport K=x\n\tE)OF\nfi\nB=1\n", 3, ("unset", 1, 5)),
        ('export A=1 K="x B=2"\n', 1, ("comment", 1, 1)),
    ],
)
def test_whole_assignments_and_all_others(shell: str, text: str, line: int, done: tuple[str, int, int]) -> None:
    assert change(text, shell, line) == done


@pytest.mark.parametrize(
    ("text", "line", "done"),
    [
        ("set -gx K x\n", 1, ("comment", 1, 1)),
        ("set --export --global K a b # c\n", 1, ("comment", 1, 1)),
        ("set -Ux K 'a;b'\n", 1, ("comment", 1, 1)),
        ("export K=(op read x 2>/dev/null; or echo '')\n", 1, ("comment", 1, 1)),
        ("if a\n  set -gx K (cmd a; b)\nend\n", 2, ("comment", 2, 2)),
        ("set -gx K $(cat ~/.config/k)\n", 1, ("comment", 1, 1)),
        ("set -g -x K (python3 -c \"print(open('$HOME/f').read()['k'])\" 2>/dev/null)\n", 1, ("comment", 1, 1)),
        ('set -gx K (op item get a --fields=b 2>/dev/null || echo "")\n', 1, ("comment", 1, 1)),
        ("set -gx K x; set -gx B 1\n", 1, ("unset", 1, 1)),
        ("set -gx K x; and b\n", 1, ("unset", 1, 1)),
        ("set -gx K x | b\n", 1, ("unset", 1, 1)),
        ("set -gx K (cmd)\nor echo failed\n", 1, ("unset", 1, 1)),
        ("a; and set -gx K x\n", 1, ("unset", 1, 1)),
        ("K=x cmd\n", 1, ("unset", 1, 1)),
        ("for l in (cat f)\n  set -gx (string split = $l)\nend\nb\n", 2, ("unset", 1, 3)),
        ("test -f f; and sed a f | source\n", 1, ("unset", 1, 1)),
        ("eval '\nset -gx K x\n'\n", 2, ("unset", 1, 3)),
    ],
)
def test_fish(text: str, line: int, done: tuple[str, int, int]) -> None:
    assert change(text, "fish", line) == done


def test_zsh_s_arrays_and_a_subshell_are_no_values() -> None:
    assert change("K=(a b)\nexport K\n", "zsh", 1) == ("unset", 1, 1)
    assert change("(export K=x)\n", "zsh", 1) == ("unset", 1, 1)


@pytest.mark.parametrize("before", ["true &!", "true &|", "true &! # at once"])
def test_zsh_s_words_for_a_job_of_its_own_end_a_statement(before: str) -> None:
    assert change(f"{before}\nexport K=x\n", "zsh", 2) == ("comment", 2, 2)
    assert change("true |\n  export K=x\n", "zsh", 2) == ("unset", 1, 2)


@pytest.mark.parametrize("shell", SH)
def test_a_block_is_not_left_empty(shell: str) -> None:
    script = Script("export A=1\nif a; then\n  export K=1\n  export K=2\nfi\n", shell)
    one = script.render({Change(1, 1, "export A=…"): {"A": "n"}, Change(3, 3, "export K=…"): {K: "n"}})
    assert one is not None
    assert one[0] == "# n\n# export A=…\nif a; then\n  # n\n  # export K=…\n  export K=2\nfi\n"
    both = script.render({Change(n, n, "export K=…"): {K: "n"} for n in (3, 4)})
    assert both is not None
    assert syntax_error(both[0], shell) is None


def test_where_the_lines_went() -> None:
    script = Script("A=1\nexport K=x\n. f\nB=2\n", "bash")
    made = script.render({Change(2, 2, "export K=…"): {K: "n"}, Change(3, 3): {K: "n"}})
    assert made == ("A=1\n# n\n# export K=…\n. f\n# n\nunset ANTHROPIC_API_KEY\nB=2\n", [1, 2, 2, 3, 3, 3, 4, 5])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (". f", ". f\n# n\nunset K L\n"),
        (". f\n", ". f\n# n\nunset K L\n"),
        (". f\r\n", ". f\r\n# n\r\nunset K L\r\n"),
        ("", "# n\nunset K L\n"),
    ],
)
def test_the_end_of_a_file(before: str, after: str) -> None:
    script = Script(before, "bash")
    end = script.unset_at_end("K")
    assert end is not None
    made = script.render({end: {"L": "n", "K": "n"}})
    assert made is not None
    assert made[0] == after
    again = Script(made[0], "bash")
    assert again.unset_at_end("K") is None
    assert again.unset_at_end("M") is not None
    assert again.unset_after(1, "K") is None
    assert again.unset_after(1, "M") is not None


def test_zsh_that_refuses_a_line_in_the_middle_is_heard() -> None:
    """Fed by its input, `zsh -n` goes on after an error, and what comes last decides how it exits."""
    assert syntax_error("if a; then\n)\nfi\n[[ a ]] && b\n", "zsh")


def test_options_that_a_file_switches_on_itself_are_no_error() -> None:
    text = "shopt -s extglob\nrm -f !(a|b)\nexport K=x\n"
    assert syntax_error(text, "bash") is None
    assert change(text, "bash", 3) == ("comment", 3, 3)


def test_five_thousand_lines_and_bytes_that_are_no_text() -> None:
    filler = "".join(f"alias a{n}='echo {n}'\n" for n in range(2500))
    text = (filler.encode() + b"# caf\xe9 \xff\nexport K=\xfe\n" + filler.encode()).decode("utf-8", "surrogateescape")
    assert change(text, "bash", 2502) == ("comment", 2502, 2502)
    assert change(text, "zsh", 2502) == ("comment", 2502, 2502)


def test_a_shell_that_gives_no_answer_neither_accepts_nor_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the text of a here-document would pass for commands otherwise."""
    text = "A=1\ncat <<EOF\nexport K=x\nEOF\n"
    script = Script(text, "bash")
    real = subprocess.run

    def busy(argv: list[str], **given: Any) -> Any:
        if b"done then end" in given["input"]:
            raise subprocess.TimeoutExpired(argv, 1)
        return real(argv, **given)

    monkeypatch.setattr(subprocess, "run", busy)
    assert script.assignment(3) is None

    def full(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "run", full)
    assert Script(text, "bash").error == syntax_error(text, "bash") == 0


def test_a_shell_that_is_killed_has_given_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel kills what is too much for its memory: that says nothing of the text."""
    program = tmp_path / "bash"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert syntax_error("A=1\n", "bash") == 0
    assert not Script("A=1\n", "bash").accepts("A=1\n")
    assert not Script("A=1\n", "bash").refuses("done\n")


def test_what_is_said_without_an_answer_tells_a_late_shell_from_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rc = tmp_path / ".bashrc"
    assert no_answer("bash", rc) == f"bash did not say in time whether {rc} is valid; run this again"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert no_answer("bash", rc) == f"there is no bash on PATH to check {rc} with; take it out by hand"
