"""What errors of the command line are to a session."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import farmhand
from farmhand.mcp_server import words

SOURCES = Path(farmhand.__file__).parent


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("try again later", "try again later"),
        ("make room and give the same command: it goes on from here", "make room and farm_result b1 lets it go on"),
        ("the same command with --id t1 takes it up again", "farm_result b1 lets it go on"),
        ("raise --max-tokens", "call it again with a larger max_tokens"),
        ("try --model sonnet or --model opus", "try model sonnet or model opus"),
        ("farmhand flush t1 gives its answer later", "farm_result t1 gives its answer later"),
        ("--drop temperature leaves it out", "take temperature out of the file"),
        ("it is written by site.yml: farmhand up", "for the operator: it is written by site.yml: farmhand up"),
        ("use --place farm or docker", "for the operator: use --place farm or docker"),
        ("any claude-cheap brings it", "for the operator: any claude-cheap brings it"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_hint_names_tools_or_is_the_operators(hint: str, said: str) -> None:
    assert words.hint(hint, "b1") == said
    assert words.hint(said) == said  # what was said is not changed again


def test_without_an_id_the_tool_is_named_alone() -> None:
    assert words.hint("give the same command again") == "farm_result lets it go on"


def test_a_message_names_the_arguments() -> None:
    text = "the budget has no room; --max-tokens 77 or US$ 0.1 more in --max-usd for each host lets it go"
    assert (
        words.message(text)
        == "the budget has no room; max_tokens 77 or US$ 0.1 more in max_usd for each host lets it go"
    )


def test_a_day_that_is_none_is_said_of_the_tools_argument() -> None:
    assert words.message("--since 'x': not a day (2026-11-01, 30d)") == "since 'x': not a day (2026-11-01, 30d)"


def test_whatever_hint_there_is_no_session_is_told_to_type_a_command() -> None:
    """Every text that is given as a hint anywhere in the sources."""
    hints = {
        word.value
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.keyword) and node.arg == "hint"
        for word in ast.walk(node.value)
        if isinstance(word, ast.Constant) and isinstance(word.value, str)
    }
    assert len(hints) > 200
    for hint in hints:
        said = words.hint(hint, "b1")
        assert "the same command" not in said, hint
        assert "operator" in said or not any(word in said for word in (" --", "farmhand ", "claude-cheap", "Ctrl-C")), (
            said
        )
