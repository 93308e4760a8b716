"""The columns of the input that come back with the results, in JSON Lines and in tables."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from farmhand.batch.accounting import BatchLedger
from farmhand.batch.begin import BatchPlan, InvalidInput, fill_journal, open_journal
from farmhand.batch.coordinator import Coordinator
from farmhand.batch.inputs import KEPT_BYTES
from farmhand.batch.names import name_after
from farmhand.batch.output import OutputFile
from farmhand.batch.sources import source
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core.errors import UsageError
from farmhand.core.settings import Settings
from tests.support.places import InProcessPlace, Worker
from tests.unit.batch.fake import KEY

PEOPLE = 'id,name,topic\np1,"Ann, B.",hens\np2,"Bo ""x""\nC","=1+1"\n'


def run(
    directory: Path,
    out: str = "out.jsonl",
    name: str = "people.csv",
    text: str | None = PEOPLE,
    template: str | None = "Hi {name}",
    keep: list[str] | None = None,
    outcomes: Sequence[dict[str, Any]] = (),
) -> Path:
    """Run the whole batch, as the command does, on one worker."""
    given = directory / name
    if text is not None:
        given.write_text(text)
    key = directory / "key.env"
    key.touch(0o600)
    key.write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    tasks, about = source([str(given)], "auto", template, {}, keep)
    journal = open_journal(directory / out, [str(given)])
    try:
        fill_journal(BatchPlan(tasks, "", about, str(given)), journal, Settings(key_source=f"file:{key}"))
        output = OutputFile(directory / out, journal, ordered=True)
        book = BatchLedger(journal, output)
        if book.totals.left:
            worker = Worker("one")
            ends = iter(outcomes)
            worker.outcome = lambda task: next(
                ends, {"state": "succeeded", "text": f"{task['prompt']}!", "cost_usd": 1e-7}
            )
            Coordinator(book, InProcessPlace([worker]), KEY, WorkerLimits(), lambda _line: None).run(lambda: None)
        output.close()
    finally:
        journal.close()
    return directory / out


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_columns_of_a_table_come_back(tmp_path: Path) -> None:
    found = lines(run(tmp_path))
    assert [result["input"] for result in found] == [
        {"id": "p1", "name": "Ann, B.", "topic": "hens"},
        {"id": "p2", "name": 'Bo "x"\nC', "topic": "=1+1"},
    ]


def test_of_a_long_row_come_those_that_have_room(tmp_path: Path) -> None:
    long = "x" * (KEPT_BYTES - 1)
    found = lines(run(tmp_path, text=f"a,name,b,c\n{long},n,{long},y\n,n,,ü\n"))
    assert [sorted(result["input"]) for result in found] == [["a", "name"], ["a", "b", "c", "name"]]
    named = lines(run(tmp_path, out="all.jsonl", text=None, keep=["b"]))
    assert [result["input"] for result in named] == [{"b": long}, {"b": ""}]
    assert "input" not in lines(run(tmp_path, out="none.jsonl", text=None, keep=[]))[0]


def test_named_fields_of_json_lines_are_no_part_of_the_task(tmp_path: Path) -> None:
    text = '{"prompt": "p", "customer": {"n": 7}, "labels": {"a": "b"}}\n'
    with pytest.raises(InvalidInput):
        run(tmp_path, name="in.jsonl", text=text, template=None)
    found = lines(run(tmp_path, name="in.jsonl", text=text, template=None, keep=["customer", "labels"]))
    assert found[0]["input"] == {"customer": {"n": 7}, "labels": {"a": "b"}}


def test_a_column_that_is_missing_and_a_key_in_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        run(tmp_path, keep=["nmae"])
    assert refused.value.lines[0] == "line 1 has no column 'nmae' (it has: id, name, topic)"
    with pytest.raises(InvalidInput) as refused:
        run(tmp_path, text=f"name,secret\na,{KEY}\n")
    assert "holds the API key" in refused.value.lines[0]
    assert not (tmp_path / "out.jsonl.farmhand").exists()


def test_other_columns_are_another_batch(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(UsageError, match="other values of the option --keep"):
        run(tmp_path, keep=["id"])


@pytest.mark.parametrize(("out", "mark"), [("out.csv", ","), ("OUT.TSV", "\t")])
def test_a_table_has_them_as_columns(tmp_path: Path, out: str, mark: str) -> None:
    path = run(tmp_path, out=out)
    rows = list(csv.reader(io.StringIO(path.read_text()), delimiter=mark))
    ours = ["text", "structured", "error", "model", "host", "cost_usd"]
    assert rows[0] == ["n", "id", "state", "input.id", "name", "topic", *ours]
    assert rows[1][:7] == ["2", "p1", "succeeded", "p1", "Ann, B.", "hens", "Hi Ann, B.!"]
    assert rows[2][3:7] == ["p2", 'Bo "x"\nC', "=1+1", 'Hi Bo "x"\nC!']
    assert rows[1][-1] == "0.0000001"
    whole = path.read_bytes()
    head = whole.index(b"\n") + 1
    for rest in (
        b"",
        whole[:5],
        whole[:head],
        whole[: head + 9],
        whole[:-1],
        whole[:-20],
        whole + b"3",
        whole + b"\0" * 9,
    ):
        path.write_bytes(rest)
        assert run(tmp_path, out=out, text=None).read_bytes() == whole, rest


def test_a_table_of_results_can_be_the_next_input(tmp_path: Path) -> None:
    first = run(tmp_path, out="first.csv")
    second = run(tmp_path, out="second.csv", name="first.csv", text=None, template="Shorter: {text}")
    rows = list(csv.DictReader(io.StringIO(second.read_text())))
    assert [row["text"] for row in rows] == ["Shorter: Hi Ann, B.!!", 'Shorter: Hi Bo "x"\nC!!']
    assert [(row["input.text"], row["input.input.id"], row["name"]) for row in rows] == [
        ("Hi Ann, B.!", "p1", "Ann, B."),
        ('Hi Bo "x"\nC!', "p2", 'Bo "x"\nC'),
    ]
    assert len({*second.read_text().splitlines()[0].split(",")}) == len(rows[0])
    assert first.exists()


def test_failed_rows_have_their_columns_and_structured_answers_are_json(tmp_path: Path) -> None:
    ended = [
        {"state": "failed", "error": {"code": "timeout", "message": "too long"}},
        {"state": "succeeded", "structured": {"cows": [1, True]}},
    ]
    rows = list(csv.DictReader(io.StringIO(run(tmp_path, out="out.csv", outcomes=ended).read_text())))
    assert [row["name"] for row in rows] == ["Ann, B.", 'Bo "x"\nC']
    assert [row["error"] for row in rows] == ["timeout: too long", ""]
    assert json.loads(rows[1]["structured"]) == {"cows": [1, True]}


@pytest.mark.parametrize(
    "mine",
    [
        "name,mail\nann,a@example.org\n",
        "n,id,state\n1,2,3\n",
        "n,id,state,text,structured,error,model,host,cost_usd\n2,other,succeeded,,,,,,\n",
        "n,id,state,text,structured,error,model,host,cost_usd\nmy remark\n",
        "my remark",
    ],
)
def test_a_table_of_somebody_else_is_left_alone(tmp_path: Path, mine: str) -> None:
    path = run(tmp_path, out="out.csv")
    path.write_text(mine)
    with pytest.raises(UsageError, match="choose another --out"):
        run(tmp_path, out="out.csv", text=None)
    assert path.read_text() == mine


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("people.csv", "people"),
        ("/tmp/My file (2).jsonl", "My-file-2"),
        ("x" * 90 + ".csv", "x" * 40),
        ("docs/", "docs"),
    ],
)
def test_a_batch_is_called_after_its_file(called: str, name: str) -> None:
    assert re.fullmatch(re.escape(name) + "-[0-9a-f]{8}", name_after(called))
    assert name_after(called) != name_after(called)


@pytest.mark.parametrize("called", ["", "…", "sk-ant-test-pasted-0000.jsonl", "\udcff"])
def test_without_a_name_that_can_be_used_it_has_one_of_its_own(called: str) -> None:
    assert re.fullmatch("b[0-9a-f]{12}", name_after(called))
