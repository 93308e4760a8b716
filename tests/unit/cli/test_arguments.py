from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.cli import run
from farmhand.cli.arguments import OPTIONS, plain
from farmhand.core.ids import MAX_PRIORITY, MAX_TOKENS

WORDS = [name for option in OPTIONS for name in option.names]
VALUES = [
    "x",
    "",
    "-",
    "--",
    "-x",
    "7",
    "0",
    "1.5",
    "10m",
    "$2",
    "nan",
    "cli",
    "none",
    "a b",
    "--json=1",
    "--model=x",
    "-mx",
    "--mod",
]


def by_click(arguments: list[str]) -> dict[str, Any] | None:
    """What click makes of the arguments; None where it refuses them or shows its help."""
    try:
        context = run.command.make_context("run", list(arguments))
    except (click.ClickException, click.exceptions.Exit):
        return None
    return context.params


@given(st.lists(st.sampled_from(WORDS + VALUES), max_size=6))
def test_what_is_plain_means_the_same_to_click(arguments: list[str]) -> None:
    read = plain(arguments)
    if read is not None:
        assert repr(read) == repr({name: by_click(arguments)[name] for name in read})  # type: ignore[index]


def test_ordinary_calls_are_plain() -> None:
    assert plain(["task"]) == dict.fromkeys(option.to for option in OPTIONS) | {
        "prompt": "task",
        "file": (),
        "tools": (),
        "labels": (),
        "economy": False,
        "events": False,
        "extract": False,
        "extract_last": False,
        "go_on": False,
        "chat": False,
        "no_stdin": False,
        "as_json": False,
        "subscription": False,
        "last": False,
    }
    read = plain(["-f", "a", "--file", "b", "--timeout", "3", "--max-tokens", "5", "--engine", "cli", "--", "--json"])
    assert read is not None
    assert (read["file"], read["timeout_s"], read["max_tokens"]) == (("a", "b"), 3.0, 5)
    assert (read["engine"], read["prompt"], read["as_json"]) == ("cli", "--json", False)
    read = plain(["--timeout", "1h30m", "--max-usd", "$0.05", "--priority", "7", "--label", "a=b", "--label", "c=d"])
    assert read is not None
    assert (read["timeout_s"], read["max_usd"], read["priority"]) == (5400.0, 0.05, 7)
    assert read["labels"] == ("a=b", "c=d")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["-h"], ["a", "b"], ["--model"], ["--engine", "x"], ["--nothing"]),
        *(["--max-tokens", "128001"], ["--max-tokens", "0"], ["--priority", "1000001"]),
    ],
)
def test_help_and_mistakes_are_left_to_click(arguments: list[str]) -> None:
    assert plain(arguments) is None


@pytest.mark.parametrize(("option", "most"), [("--max-tokens", MAX_TOKENS), ("--priority", MAX_PRIORITY)])
def test_a_limit_is_said_of_the_option(option: str, most: int) -> None:
    with pytest.raises(click.BadParameter, match=f"{most + 1} is not in the range .*{most}") as refused:
        run.command.make_context("run", [option, str(most + 1), "x"])
    assert option in refused.value.format_message()
    assert plain([option, str(most)]) is not None
