from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from farmhand.cli import batch
from farmhand.cli.batch import BatchOptions, defaults, open_journal
from farmhand.cli.progress import ProgressDisplay, clock, dollars, summary
from farmhand.core.errors import UsageError
from farmhand.core.settings import Settings

NOTHING: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(BatchOptions))
STANDING = {"total": 10, "succeeded": 4, "failed": 1, "cancelled": 0, "cost_usd": 0.25, "finished_now": 5}


def options(**given: Any) -> BatchOptions:
    empty = {"inputs": (), "form": "auto", "tools": (), "labels": (), "economy": False, "restart": False}
    return BatchOptions(**{**NOTHING, **empty, **given})


def test_only_what_was_asked_for_becomes_a_default() -> None:
    assert defaults(options(), Settings()) == {}
    given = options(labels=("a=b=c",), tools=("Bash, Read",), priority=2, economy=True, schema="{}", work_class="w")
    assert defaults(given, Settings(model="opus", timeout_s=5.0)) == {
        "labels": {"a": "b=c"},
        "tools": ["Bash", "Read"],
        "priority": 2,
        "economy": True,
        "work_class": "w",
        "model": "opus",
        "timeout_s": 5.0,
    }
    with pytest.raises(UsageError, match="NAME=VALUE"):
        defaults(options(labels=("x",)), Settings())


@pytest.mark.parametrize(
    ("given", "name"),
    [({"system": "\udcff"}, "--system"), ({"labels": ("a=\udcff",)}, "--label"), ({"tools": ("\udcff",)}, "--tools")],
)
def test_an_option_that_is_not_utf_8_is_named(given: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name} is not valid UTF-8"):
        defaults(options(**given), Settings())


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"labels": ("a=sk-ant-test-pasted-0000",)}, "--label"),
        ({"labels": ("sk-ant-test-pasted-0000=a",)}, "--label"),
        ({"work_class": "sk-ant-test-pasted-0000"}, "--work-class"),
        ({"tools": ("sk-ant-test-pasted-0000",)}, "--tools"),
    ],
)
def test_a_key_is_no_name(given: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"^an API key stands in {name}"):
        defaults(options(**given), Settings())
    with pytest.raises(UsageError, match=r"^an API key stands in --model"):
        defaults(options(), Settings(model="sk-ant-test-pasted-0000"))


@pytest.mark.parametrize(
    "line",
    [
        {"id": "sk-ant-test-pasted-0000"},
        {"id": "sk-ant-test-pasted-0000 x"},
        {"model": "sk-ant-test-pasted-0000"},
        {"labels": {"a": "sk-ant-test-pasted-0000"}},
    ],
)
def test_a_key_as_a_name_in_a_line_is_refused_and_not_shown(tmp_path: Path, line: dict[str, Any]) -> None:
    for name in ("site.yml", "ansible.cfg"):
        (tmp_path / name).touch()
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "p", **line}) + "\n")
    out = tmp_path / "out.jsonl"
    arguments = [str(tmp_path / "in.jsonl"), "--out", str(out), "--json", "--project-dir", str(tmp_path)]
    done = subprocess.run(
        [Path(sys.executable).with_name("farmhand"), "batch", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "line 1 " in done.stderr
    assert "sk-ant-test" not in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []


def test_the_last_line() -> None:
    whole = {"total": 500, "done": 498, "failed": 2, "cancelled": 0, "left": 0, "cost_usd": 0.0123, "unpriced": 2}
    whole |= {"seconds": 12.3, "per_s": 40.7, "twice": 0, "twice_usd": 0.0, "uncertain": 0}
    line = "500 tasks: 498 done, 2 failed, 0 cancelled · $0.0123 (2 unpriced) · 12.3 s · 40.7 tasks/s"
    assert summary(whole) == line
    told = summary(whole | {"left": 3, "twice": 1, "twice_usd": 0.0001, "uncertain": 4})
    assert ", 3 left ·" in told
    assert "1 ran twice, $0.0001" in told
    assert "4 requests may have cost something" in told


def test_an_output_that_cannot_be_is_refused(tmp_path: Path) -> None:
    taken = tmp_path / "taken.jsonl"
    taken.write_text("mine\n")
    for out, inputs, words in (
        (tmp_path / "none" / "x", (), "there is no directory"),
        (tmp_path, (), "not a regular file"),
        (taken, (str(taken),), "is the input"),
        (taken, (), "is there already"),
    ):
        with pytest.raises(UsageError, match=words):
            open_journal(options(out=str(out), inputs=inputs))
    assert taken.read_text() == "mine\n"
    assert [path.name for path in tmp_path.iterdir()] == ["taken.jsonl"]


@pytest.mark.parametrize("text", ["mine\n", '{"n": 1, "id": "a", "state": "failed"}\n', "mine"])
def test_a_restart_forgets_an_output_of_ours_and_nothing_else(tmp_path: Path, text: str) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(text)
    with pytest.raises(UsageError, match="not known to be an output"):
        open_journal(options(out=str(out), restart=True))
    assert out.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    out.unlink()
    journal = open_journal(options(out=str(out)))
    with journal.transaction():
        journal.begin_new({"batch": "b"})
        journal.add(1, "x", b"body")
    journal.close()
    # The journal of another file beside it makes it no output either.
    out.write_text(text)
    with pytest.raises(UsageError, match=r"was not written by farmhand batch|not in this batch"):
        open_journal(options(out=str(out), restart=True))
    assert out.read_text() == text
    out.write_text('{"n": 1, "id": "x", "state": "failed"}\n{"n":')
    again = open_journal(options(out=str(out), restart=True))
    assert (again.fresh, out.exists()) == (True, False)
    with again.transaction():
        again.begin_new({"batch": "b"})
    again._db.execute("PRAGMA user_version = 7")
    again.close()
    with pytest.raises(UsageError, match="another version"):
        open_journal(options(out=str(out)))
    # Another version's journal beside it makes nothing an output either.
    out.write_text("mine\n")
    with pytest.raises(UsageError, match="was not written by farmhand batch"):
        open_journal(options(out=str(out), restart=True))
    assert out.read_text() == "mine\n"
    out.write_text('{"n": 7, "id": "y", "state": "failed"}\n')
    assert open_journal(options(out=str(out), restart=True)).fresh
    assert not out.exists()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("version", [0, 1, 7])
def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(tmp_path: Path, version: int, restart: bool) -> None:
    theirs = tmp_path / "out.jsonl.farmhand"
    with contextlib.closing(sqlite3.connect(theirs)) as db:
        db.execute("CREATE TABLE meta (name, value)")
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    before = theirs.read_bytes()
    with pytest.raises(UsageError, match="is not a journal of farmhand batch"):
        open_journal(options(out=str(tmp_path / "out.jsonl"), restart=restart))
    assert theirs.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [theirs.name]


def test_amounts_and_times() -> None:
    assert [dollars(usd) for usd in (0, 12.5, 0.0123, 0.000056, 1e-8)] == [
        "$0.0000",
        "$12.5000",
        "$0.0123",
        "$0.000056",
        "$1e-08",
    ]
    assert [clock(seconds) for seconds in (0.4, 59, 61, 3750)] == ["0 s", "59 s", "1:01", "1:02:30"]


def test_plain_lines_come_now_and_then_and_only_with_news(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressDisplay("lines", STANDING)
    progress.tick()
    progress._line_at -= 10
    progress._began -= 10
    progress.tick()
    progress._line_at -= 10
    progress.tick()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "5 of 10 · 1 failed · 0.5/s · $0.2500 · ETA 10 s\n"
    progress.say("farm1: lost")
    assert capsys.readouterr().err == "farmhand: farm1: lost\n"
    quiet = ProgressDisplay("quiet", STANDING)
    quiet._line_at -= 10
    quiet.tick()
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressDisplay("bar", STANDING)
    progress.update(STANDING | {"succeeded": 9, "waiting": "the API's\x1b[31m limit"})
    assert "\x1b" not in progress.words()
    progress.tick()
    progress.say("a [red]line[/red]")
    progress.close()
    assert "a [red]line[/red]" in capsys.readouterr().err


def test_help_and_usage() -> None:
    text = CliRunner().invoke(batch.command, ["--help"]).output
    for name in (
        "--out",
        "--template",
        "--ordered",
        "--retry-failed",
        "--economy",
        "--max-usd",
        "--hosts",
        "--restart",
    ):
        assert name in text
    assert CliRunner().invoke(batch.command, ["x"]).exit_code == 2
