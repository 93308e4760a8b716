"""Every option and argument of every verb: one that takes a path completes files, one of a known set offers that."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest

from farmhand.cli.app import farmhand
from farmhand.cli.completion import OfferingBash, OfferingFish, OfferingZsh
from farmhand.cli.offers import OPEN, offers
from farmhand.core.task import TOOLS
from farmhand.cost.queries import KEYS
from farmhand.cost.rows import FinishedTask
from farmhand.cost.store import CostStore, default_path
from farmhand.history.store import HistoryStore
from farmhand.history.store import default_path as past_tasks
from farmhand.offline import conversations


def parameters(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Parameter]]:
    """The parameters that take a value of all verbs, each with how it is typed."""
    ctx = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            yield from parameters(below, (*path, name))
        return
    for each in command.params:
        if not getattr(each, "is_flag", False):
            yield " ".join((*path, each.opts[0])), each


ALL = dict(parameters(farmhand))
#: The ends of words that are paths, in names of options and of what they take.
PATHS = re.compile(r"\b(FILE|DIR|PATH|REPO|IN)\b|--(\S*-)?(file|dir|config|store|out|html|template|schema|inventory)$")


def typed(line: str, kind: type[OfferingBash | OfferingZsh | OfferingFish] = OfferingZsh) -> list[tuple[str, str]]:
    """What the shell is answered for the last word of a line that begins with `farmhand`: types and values."""
    *before, word = line.split(" ")
    found = kind(farmhand, {}, "farmhand", "_FARMHAND_COMPLETE").get_completions(before, word)
    return [(item.type, item.value) for item in found]


def test_each_metavar_is_known_to_offer_something_or_to_be_open() -> None:
    unknown = {
        name: each.metavar
        for name, each in ALL.items()
        if isinstance(each.type, click.types.StringParamType | click.types.UnprocessedParamType)
        and not isinstance(each.type, click.Choice)
        and each.metavar not in OPEN
        and offers(each.metavar or "", {}, "") is None
    }
    assert not unknown, "add their metavars to farmhand.cli.offers: to _OFFERS, or to OPEN where nothing can be offered"
    assert len(ALL) > 150


def test_what_takes_a_path_completes_files() -> None:
    paths = [name for name, each in ALL.items() if PATHS.search(f"{each.metavar} {name}")]
    found = {name: typed(f"{re.sub(r' [^- ]+$', '', name) if ' -' not in name else name} rep") for name in paths}
    assert len(found) > 50
    assert {name: answer for name, answer in found.items() if answer not in ([("file", "")], [("dir", "")])} == {}


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "farmhand").mkdir()
    hosts = {name: {"address": "192.0.2.1"} for name in ("west", "east")}
    (tmp_path / "farmhand/hosts.json").write_text(json.dumps({"hosts": hosts}))
    with closing(CostStore(default_path())) as store:
        ledger, *_ = store.ledger("uuid", "west")
        about: dict[str, Any] = {"batch": "people", "work_class": "mail", "model": "haiku", "engine": "api"}
        task = FinishedTask(number=1, created_at=1.0, finished_at=1.0, state="succeeded", **about)
        store.merge(ledger, FinishedTask, [task])
    with conversations.opened("trip") as kept:
        conversations.save(kept)
    with closing(sqlite3.connect(HistoryStore(past_tasks()).path)) as history, history:
        history.execute("INSERT INTO ledger (id, uuid, farm, host) VALUES (1, 'uuid', 'farm', 'west')")
        history.execute(
            "INSERT INTO task (ledger, id, state, batch, created_at, content, line, held, about, prompt, spec,"
            " answer)"
            " VALUES (1, 't-1', 'succeeded', '', 1, '', 't-1', 0, '{}', '', '', '')"
        )


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("run --host ", ["west", "east"]),
        ("status --host e", ["east"]),
        ("batch --hosts ", ["farm", "west", "east"]),
        ("batch --batch ", ["people"]),
        ("cloud logs p", ["people"]),
        ("run --conversation ", ["trip"]),
        ("show ", ["t-1"]),
        ("wait t-1 t", ["t-1"]),
        ("batch --work-class ", ["mail"]),
        ("list --batch p", ["people"]),
        ("run --tools Read,Ba", ["Read,Bash"]),
        ("run --tools ", sorted(TOOLS)),
        ("cost --by ", [*KEYS, "label:"]),
        ("cost --by=h", ["--by=host"]),
        ("doctor --notify ", ["desktop", "mail:", "webhook:"]),
        ("rotate --new-key ", ["file:", "env:", "keyring:", "command:", "secretsmanager:"]),
        ("run -m op", ["opus"]),
        ("cost --baseline-model hai", ["haiku"]),
        ("flush nothing", []),
        ("run --schema {", []),
    ],
)
def test_a_known_set_is_offered(line: str, wanted: list[str]) -> None:
    assert typed(line) == [("plain", value) for value in wanted]


def test_models_are_those_with_a_price() -> None:
    models = [value for _, value in typed("run --model claude-")]
    assert "claude-haiku-5-5" in models


def test_what_stands_before_a_path_is_kept() -> None:
    assert typed("rotate --key-source=file:k", OfferingFish) == [("file", "--key-source=file:")]
    assert typed("rotate --new-key webhook:x") == []


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--engine", "=", "a"], [("plain", "auto"), ("plain", "api")]),
        (["--engine", "="], [("plain", "auto"), ("plain", "api"), ("plain", "cli")]),
        (["--schema", "=", "rep"], [("file", "")]),
        (["--key-source", "file", ":", "rep"], [("file", "")]),
        (["--key-source", "=", "fi"], [("plain", "file:")]),
    ],
)
def test_bash_splits_words_and_gets_what_follows(
    words: list[str], wanted: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["farmhand", "run", *words]
    monkeypatch.setenv("COMP_WORDS", "\n".join(line))
    monkeypatch.setenv("COMP_CWORD", str(len(line) - 1))
    bash = OfferingBash(farmhand, {}, "farmhand", "_FARMHAND_COMPLETE")
    found = bash.get_completions(*bash.get_completion_args())
    assert [(item.type, item.value) for item in found] == wanted


@pytest.mark.parametrize("text", ["[]", "not JSON", '{"hosts": 1}'])
def test_what_cannot_be_read_offers_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "farmhand").mkdir()
    for name in ("hosts.json", "cost.db"):
        (tmp_path / "farmhand" / name).write_text(text)
    assert typed("run --host ") == typed("batch --batch ") == []
