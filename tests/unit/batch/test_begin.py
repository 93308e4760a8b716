"""The journal beside an output: whose it is, and what a restart may remove."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from farmhand.batch.begin import BatchPlan, InvalidInput, fill_journal, open_journal
from farmhand.batch.inputs import JsonLines
from farmhand.batch.journal import Journal
from farmhand.batch.sources import source
from farmhand.core.errors import UsageError
from farmhand.core.pots import PotSettings
from farmhand.core.settings import Settings


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
            open_journal(out, inputs)
    assert taken.read_text() == "mine\n"
    assert [path.name for path in tmp_path.iterdir()] == ["taken.jsonl"]


def test_a_file_that_is_no_task_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hens")
    (tmp_path / "b.txt").touch()
    (tmp_path / "key.env").touch(0o600)
    (tmp_path / "key.env").write_text("ANTHROPIC_API_KEY=sk-ant-test-files-0000000000\n")
    made, _ = source([str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), str(tmp_path / "c.txt")], "files", None, {})
    journal = Journal(tmp_path / "out.farmhand")
    with pytest.raises(InvalidInput) as raised:
        fill_journal(BatchPlan(made, "", {}), journal, Settings(key_source=f"file:{tmp_path}/key.env"))
    assert raised.value.lines == [
        f"{tmp_path}/b.txt is no task: the prompt is empty",
        f"{tmp_path}/c.txt cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize("text", ["mine\n", '{"n": 1, "id": "a", "state": "failed"}\n', "mine"])
def test_a_restart_forgets_an_output_of_ours_and_nothing_else(tmp_path: Path, text: str) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(text)
    with pytest.raises(UsageError, match="not known to be an output"):
        open_journal(out, (), restart=True)
    assert out.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    out.unlink()
    journal = open_journal(out, ())
    with journal.transaction():
        journal.begin_new({"batch": "b"})
        journal.add(1, "x", b"body")
    journal.close()
    # The journal of another file beside it makes it no output either.
    out.write_text(text)
    with pytest.raises(UsageError, match=r"was not written by farmhand batch|not in this batch"):
        open_journal(out, (), restart=True)
    assert out.read_text() == text
    out.write_text('{"n": 1, "id": "x", "state": "failed"}\n{"n":')
    again = open_journal(out, (), restart=True)
    assert (again.fresh, out.exists()) == (True, False)
    with again.transaction():
        again.begin_new({"batch": "b"})
    again._db.execute("PRAGMA user_version = 7")
    again.close()
    with pytest.raises(UsageError, match="another version"):
        open_journal(out, ())
    # Another version's journal beside it makes nothing an output either.
    out.write_text("mine\n")
    with pytest.raises(UsageError, match="was not written by farmhand batch"):
        open_journal(out, (), restart=True)
    assert out.read_text() == "mine\n"
    out.write_text('{"n": 7, "id": "y", "state": "failed"}\n')
    assert open_journal(out, (), restart=True).fresh
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
        open_journal(tmp_path / "out.jsonl", (), restart=restart)
    assert theirs.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [theirs.name]


def test_a_line_may_name_a_pot_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"plan": "sk-ant-test-plan-0000000000000000", "paid": "sk-ant-test-paid-0000000000000000"}
    for name, key in keys.items():
        monkeypatch.setenv(name.upper(), key)
    hosts = tmp_path / "hosts.json"
    hosts.write_text('{"hosts": {"farm1": {"address": "192.0.2.1"}}}')
    conf = Settings(
        hosts_file=str(hosts), pots=tuple(PotSettings(name, f"env:{name.upper()}") for name in keys), pot="plan"
    )

    def fill(*lines: dict[str, str]) -> Any:
        file = io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode())
        plan = BatchPlan(JsonLines(file, {"pot": "plan"}), "", {})
        return fill_journal(plan, Journal(tmp_path / "j"), conf)

    given = fill({"prompt": "one"}, {"prompt": "two", "pot": "paid"})
    assert [(pot["name"], pot["key"]) for pot in given] == [*keys.items()]  # all of them: any line may need one
    (tmp_path / "j").unlink()
    with pytest.raises(InvalidInput) as caught:
        fill({"prompt": "one", "pot": "other"}, {"prompt": f"say {keys['paid']}"})
    assert "names the pot 'other'" in caught.value.lines[0]
    assert "holds the API key itself" in caught.value.lines[1]
