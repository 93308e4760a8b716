"""A key that is given in the wrong place is never shown back: not on stderr, not in JSON, by no verb and no option."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from farmhand.cli import app, say
from farmhand.cli.arguments import OPTIONS
from farmhand.core import keys
from farmhand.core.settings import PREFIX, Settings
from tests.support import command

KEY = "sk-ant-api03-pasted_by-mistake-0000000000"
URL = "https://jo:hunter2@proxy.example/x"
BOTH = URL + KEY
SECRETS = (KEY, "hunter2", "pasted_by")


#: What the verbs import: each is tried with every option.
LOADED = ("boto3", *(f"farmhand.cli.{verb}" for verb in app.VERBS if verb != "top"))


def call(home: Path, *arguments: str, program: str = "farmhand", **variables: str) -> tuple[int, str]:
    """Status, and all that was said, of a command in an empty home."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **variables}
    done = command.run(program, arguments, environ, home, preload=LOADED)
    return done.returncode, done.stdout + done.stderr


def every_option() -> list[tuple[str, str]]:
    """Each verb with each of its options that take a value."""
    context = click.Context(app.farmhand)
    found = []
    for verb in app.VERBS:
        top = app.farmhand.get_command(context, verb)
        assert top is not None
        for words, one in leaves(verb, top):
            for parameter in one.params:
                if isinstance(parameter, click.Option) and not parameter.is_flag:
                    found.append((words, parameter.opts[-1]))
    return found


def leaves(words: str, top: click.Command) -> Iterator[tuple[str, click.Command]]:
    """The command, or those of a group with all their words."""
    if not isinstance(top, click.Group):
        yield words, top
        return
    context = click.Context(top)
    for name in top.list_commands(context):
        below = top.get_command(context, name)
        assert below is not None
        yield from leaves(f"{words} {name}", below)


#: These wait, watch or write where they are told to, and say nothing of their own value.
LEFT_OUT = {("report", "--out"), ("gateway serve", "--prices-file")}


@pytest.mark.parametrize(("verb", "option"), [pair for pair in every_option() if pair not in LEFT_OUT])
def test_no_option_shows_its_value(tmp_path: Path, verb: str, option: str) -> None:
    prompt = ["hello"] if verb == "run" else ["in.jsonl", "--out", "o"] if verb == "batch" else []
    if option == "--out":
        prompt = ["in.jsonl"]
    # What is wrong is said on stderr and, with --json, on stdout as well.
    _, said = call(tmp_path, *verb.split(), *prompt, option, BOTH, "--json")
    assert not [secret for secret in SECRETS if secret in said], said


@pytest.mark.parametrize(
    "arguments",
    [
        [KEY],
        [f"--{KEY}"],
        ["--nothing", KEY],
        ["status", KEY],
        ["run", KEY, KEY],
        ["run", "--timeout", KEY, "x"],
        ["run", "-f", f"/{KEY}", "x"],
        ["batch", KEY, "--out", "o"],
        ["flush", KEY],
        ["rotate", "--new-key", KEY],
        ["rotate", "--abort", KEY],
    ],
)
def test_no_argument_is_shown(tmp_path: Path, arguments: list[str]) -> None:
    status, said = call(tmp_path, *arguments)
    assert status != 0
    assert said.count("\n") == 1
    assert not [secret for secret in SECRETS if secret in said], said


@pytest.mark.parametrize("name", [PREFIX + name.upper() for name in Settings._fields])
def test_no_variable_is_shown(tmp_path: Path, name: str) -> None:
    variable = "FARMHAND_CONFIG" if name == "FARMHAND_CONFIG_FILE" else name
    for verb in (["run", "x"], ["rotate", "--status"]):
        _, said = call(tmp_path, *verb, **{variable: BOTH})
        assert not [secret for secret in SECRETS if secret in said], said


def test_a_traceback_that_was_asked_for_holds_none(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FARMHAND_DEBUG", "1")

    def fail() -> int:
        raise RuntimeError(f"{KEY} {URL}")

    with pytest.raises(SystemExit):
        say.end("farmhand", fail)
    said = capfd.readouterr().err
    assert "RuntimeError" in said
    assert not [secret for secret in SECRETS if secret in said], said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://u:p@h/x", "at https://…@h/x"),
        ("at https://token@h", "at https://…@h"),
        ("ssh://jo@h:22", "ssh://…@h:22"),
        ("https://h/a@b", "https://h/a@b"),
        ("me@example.com", "me@example.com"),
        ("'http://u:p@h' x@y", "'http://…@h' x@y"),
    ],
)
def test_what_stands_before_a_urls_host_is_hidden(text: str, shown: str) -> None:
    assert keys.without_secrets(text) == shown


def test_the_table_of_options_is_the_one_that_is_tried() -> None:
    tried = {name for verb, name in every_option() if verb == "run"}
    assert {option.names[-1] for option in OPTIONS if option.kind not in ("flag", "switch")} <= tried
