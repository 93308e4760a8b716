from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from farmhand.cli import app, examples, man_pages

ROOT = Path(__file__).parents[3]
EXAMPLES = [(verb, line) for verb, about in examples.HELP.items() for line, _ in about.examples]


def verbs(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each verb and group below `group`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (*path, name)
        if isinstance(command := group.get_command(context, name), click.Group):
            yield from verbs(command, (*path, name))


@pytest.mark.parametrize("words", [[*path] for path in verbs(app.farmhand)])
def test_the_examples_of_a_verb_are_of_that_verb(words: list[str]) -> None:
    shown = CliRunner().invoke(app.farmhand, [*words, "--help"], prog_name="farmhand").output
    for line, _ in examples.HELP[" ".join(words if words != ["top"] else ["status"])].examples:
        assert line in shown


def test_every_verb_has_two_examples_and_a_page_of_the_docs() -> None:
    assert set(examples.HELP) == {*map(" ".join, verbs(app.farmhand)), "farmhand"}
    for verb, about in examples.HELP.items():
        assert len(about.examples) == 2, verb
        assert (ROOT / about.docs).is_file(), verb


@pytest.mark.parametrize(("verb", "line"), EXAMPLES)
def test_every_example_is_parsed_by_the_real_parser(
    verb: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(line)
    command: click.Command = app.farmhand
    if program == "claude-cheap":
        words = ["run", *words]
    ctx = click.Context(command, info_name=program)
    seen = []
    while isinstance(command, click.Group) and words[:1] != ["help"]:
        name, found, words = command.resolve_command(ctx, words)
        assert found is not None
        seen.append(name)
        command = found
    if words[:1] == ["help"]:
        assert words[1] in app.VERBS
        return
    command.make_context(command.name, list(words))  # raises for an option or a value that is none
    if verb != "farmhand":
        assert verb in line or verb == "run"
        assert " ".join(map(str, seen)).startswith(verb) or verb == "top"


@pytest.mark.parametrize("verb", app.VERBS)
def test_help_verb_is_the_verbs_help_and_has_all_parts(verb: str) -> None:
    shown = CliRunner().invoke(app.farmhand, ["help", verb]).output
    assert shown == CliRunner().invoke(app.farmhand, [verb, "--help"]).output
    assert shown.startswith(f"Usage: farmhand {'status' if verb == 'top' else verb} ")
    for words in ("Examples:", "Exit status", examples.HELP[verb].docs):
        assert words in " ".join(shown.split()), words
    if verb not in ("cloud", "gateway", "prices"):
        assert "Settings and output:" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_a_group_within_a_group_shows_its_verbs_whole_and_an_argument_may_be_left_out() -> None:
    shown = CliRunner().invoke(app.farmhand, ["cloud", "credential", "--help"]).output
    assert "Verbs:" in shown
    assert "..." not in shown.split("Verbs:")[1]
    assert "[OPTIONS] [FILE]\n" in CliRunner().invoke(app.farmhand, ["prices", "check", "--help"]).output


def test_help_alone_and_of_what_is_no_verb() -> None:
    runner = CliRunner()
    assert runner.invoke(app.farmhand, ["help"]).output == runner.invoke(app.farmhand, ["--help"]).output
    assert runner.invoke(app.farmhand, ["help", "cloud", "up"]).output.startswith("Usage: farmhand cloud up ")
    assert runner.invoke(app.farmhand, ["help", "nothing"]).exit_code == 2


def test_options_stand_in_groups() -> None:
    shown = CliRunner().invoke(app.farmhand, ["help", "run"]).output
    order = ["The task:", "Where it runs:", "Key and payer:", "Settings and output:", "Examples:"]
    assert sorted(order, key=shown.index) == order
    assert shown.index("--model") < shown.index("Where it runs:") < shown.index("--place")


def test_there_is_a_man_page_for_each_verb_and_man_takes_them(tmp_path: Path) -> None:
    assert man_pages.main([str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    wanted = {f"farmhand-{'-'.join(path)}.1" for path in verbs(app.farmhand)}
    assert names == {"farmhand.1", "claude-cheap.1", *wanted}
    assert "farmhand cloud down \\-\\-network" in (tmp_path / "farmhand-cloud-down.1").read_text()
    for path in tmp_path.iterdir():
        text = path.read_text()
        for part in (".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXAMPLES", ".SH EXIT STATUS"):
            assert part in text, (path.name, part)
        # Every line is text or one of the requests that are used here.
        assert {line.split()[0] for line in text.splitlines() if line.startswith(".")} <= {".TH", ".SH", ".TP", ".B"}
    cost = (tmp_path / "farmhand-cost.1").read_text()
    assert "\\-\\-baseline\\-model" in cost
    assert "farmhand cost \\-\\-by batch" in cost
    if groff := shutil.which("groff"):
        argv = [groff, "-man", "-Tutf8", "-ww", "-z", *map(str, tmp_path.iterdir())]
        done = subprocess.run(argv, capture_output=True, check=True)
        assert done.stderr == b""
    assert man_pages.main([]) == 2
    (tmp_path / "file").touch()
    assert man_pages.main([str(tmp_path / "file" / "x")]) == 3


@pytest.mark.parametrize("columns", [30, 40, 49])
@pytest.mark.parametrize("words", [[], ["cost"], ["list"], ["batch"]])
def test_help_fits_a_narrow_terminal(words: list[str], columns: int) -> None:
    shown = CliRunner().invoke(app.farmhand, [*words, "--help"], prog_name="farmhand", env={"COLUMNS": str(columns)})
    whole = {line.strip() for about in examples.HELP.values() for line, _ in about.examples}
    for line in shown.output.splitlines():
        # What is one word, such as an option with its choices, and what is copied is not divided.
        assert len(line) <= columns or len(line.split()) <= 3 or line.strip() in whole, line
