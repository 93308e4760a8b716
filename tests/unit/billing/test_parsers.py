"""The parsers: whatever a file holds, they give commands or one problem with its line, and never run away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farmhand.billing import fish, posix
from farmhand.billing.dynamic import commands
from farmhand.billing.syntax import Script, SyntaxProblem
from tests.support.homes import HOMES

PARSERS: list[Callable[[str], Script]] = [posix.parse, lambda text: posix.parse(text, zsh=True), fish.parse]
PIECES = st.sampled_from(
    [text for home in HOMES.values() for text in home.values()]
    + list("'\"`$(){};&|<>#\n\\ =*[]!")
    + ["if ", "then ", "fi ", "do ", "done ", "case ", "esac ", "in ", "<<EOF\n", "${", "$((", "))", "[[", "]]"]
    + ["function ", "end\n", "begin ", "switch ", "else ", "and ", "or ", "not "]
)


def extents(parse: Callable[[str], Script], text: str) -> list[tuple[int, int]]:
    """Where the commands stand; of a text that is refused, where the line does that is said to be wrong."""
    try:
        script = parse(text)
    except SyntaxProblem as problem:
        return [(problem.line, text.count("\n") + 1)]
    return [(command.start, command.end) for command in commands(script.body)]


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_anything_is_parsed_or_a_problem_with_a_line(text: str) -> None:
    for parse in PARSERS:
        assert all(0 <= start <= end <= len(text) + 1 for start, end in extents(parse, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 'b c' \"d $e\" f\\ g # h\n", ["a 'b c' \"d $e\" f\\ g"]),
        ("a=1 b >x 2>&1 <<<z c; d && e || f | g &\nh", ["a=1 b >x 2>&1 <<<z c", "d", "e", "f", "g", "h"]),
        ("x=$(a; b) y=`c` z=${d:-e}\n", ["x=$(a; b) y=`c` z=${d:-e}"]),
        ("a=(1 # no\n 2)\nb\n", ["a=(1 # no\n 2)", "b"]),
        ("((i = 1 << 2)); [[ a < b && ! c ]] && d\n", ["((i = 1 << 2))", "[[ a < b && ! c ]]", "d"]),
        ("for ((i=0; i<3; i++)); do a; done\n", ["a"]),
        ("f() { a; }; function g { b; }\n", []),
        ("cat <<A <<-'B'\n a; b\nA\n\tc\n\tB\nd\n", ["cat <<A <<-'B'", "d"]),
        ("while read -r x; do a $x; done < y\n", ["read -r x", "a $x"]),
        ("case $x in (a|b) c;; *) d ;& esac\n", []),
        ("a() # b\n{ c; }\n", []),
    ],
)
def test_posix(text: str, expected: list[str]) -> None:
    found = [text[c.start : c.end] for c in commands(posix.parse(text).body)]
    assert [one.split(" >")[0].split(" <<")[0] for one in found] == [e.split(" >")[0].split(" <<")[0] for e in expected]


@pytest.mark.parametrize("path", ["/etc/profile", "/etc/bash.bashrc", "/etc/zsh/zshrc", "/etc/skel/.bashrc"])
def test_what_the_distribution_ships_is_understood(path: str) -> None:
    if Path(path).exists():  # elsewhere than on Debian they may not be there
        posix.parse(Path(path).read_text("utf-8"), zsh="zsh" in path)
