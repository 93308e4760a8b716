"""docs/schemas is what the structs say, and what the commands print is what docs/schemas says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.testing import CliRunner

from farmhand.cli import app, report, schemas, statusline
from farmhand.core.settings import load
from farmhand.cost.store import ContainerRuns, CostStore
from tests.support.schemas import SCHEMAS, check
from tests.unit.cli.test_cost import Farm, farm
from tests.unit.cli.test_status import STATUS
from tests.unit.cli.test_status_view import run
from tests.unit.cost.ledgers import DAY, NOW
from tests.unit.places.test_watch import FakeClient, client

__all__ = ["client", "farm", "run"]


def test_the_copies_are_made_from_the_structs() -> None:
    """`make schemas` makes them so."""
    made = {schemas.file_name(verb): schemas.text(schema) for verb, schema in schemas.documents().items()}
    assert {path.name: path.read_text("utf-8") for path in SCHEMAS.iterdir()} == made


def test_cost_and_report(farm: Farm) -> None:
    check("cost", farm.json())
    with closing(CostStore(farm.directory / "cost.db")) as store:
        runs = [ContainerRuns(NOW - DAY, NOW, 2, 120, 1_500_000_000_001), ContainerRuns(0.0, 0.0, 4, 0, None)]
        store.ran("s3://b/k", "aws-prod", "batch-3", runs, settled=True)
    farm.down.add("farm2")
    check("cost", farm.json("--by", "place", "--reprice", "--compare", "cloud", "--no-interactive"))
    check("error", farm.json("--by", "x"))
    shown = CliRunner().invoke(report.command, ["--config", str(farm.config), "--json"], standalone_mode=False)
    document = json.loads(shown.stdout)
    check("report", document)
    # And the schema is no empty promise.
    wrong: tuple[dict[str, Any], ...] = ({"headline": None}, {"figures": {}}, {"more": 1})
    for broken in wrong:
        with pytest.raises(jsonschema.ValidationError):
            check("report", document | broken)


def test_status(run: Callable[..., Any], client: type[FakeClient]) -> None:
    client.breaks = 1
    answer = json.loads(run("--json").stdout)
    check("status", answer)
    assert sum("error" in host for host in answer["hosts"].values()) == 1


def test_statusline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text("")
    argv = ["--config", str(tmp_path / "config.toml"), "--no-refresh", "--json"]
    for _ in range(2):
        shown = CliRunner().invoke(statusline.command, argv, standalone_mode=False, input="")
        check("statusline", json.loads(shown.stdout))
        statusline.keep(load(argv[1]), {"farm1": {**STATUS, "spent_today_usd": 0.5}, "farm2": None})


def test_every_verb_that_prints_json_has_a_schema() -> None:
    found = {
        " ".join(path) for path, command in _verbs(app.farmhand) if any("--json" in one.opts for one in command.params)
    }
    assert found - {"top"} == {*schemas.documents()} - {"error", schemas.EVENTS}


def _verbs(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(group, click.Group):
        yield path, group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        if (command := group.get_command(context, name)) is not None:
            yield from _verbs(command, (*path, name))
