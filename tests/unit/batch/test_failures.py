from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from farmhand.batch.accounting import BatchLedger
from farmhand.batch.failures import LINES, causes, cut_short
from farmhand.batch.output import OutputFile
from farmhand.batch.output_table import ResultTable
from farmhand.cli.batch_summary import not_whole
from tests.support.places import Worker
from tests.unit.batch.fake import Batch


def failed(code: str, message: str, hint: str = "") -> dict[str, Any]:
    return {"state": "failed", "error": {"code": code, "message": message, "hint": hint}}


def test_the_most_frequent_cause_comes_first_with_its_lines(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(12)])
    host = Worker("one")
    outcomes = {"p0": {"state": "succeeded"}, "p1": failed("timeout", "too long"), "p2": {"state": "failed"}}
    host.outcome = lambda task: outcomes.get(task["prompt"], failed("refusal", f"no to {task['prompt']}", "rephrase"))
    batch.run(host)
    found = [cause.as_dict() for cause in causes(batch.journal)]
    assert found[0] == {
        "code": "refusal",
        "message": "no to p3",
        "hint": "rephrase",
        "times": 9,
        "lines": [4, 5, 6, 7, 8],
    }
    assert len(found[0]["lines"]) == LINES
    assert [(one["code"], one["times"], one["lines"]) for one in found[1:]] == [("timeout", 1, [2]), ("failed", 1, [3])]


def test_answers_that_were_cut_off_are_counted_and_their_table_says_so(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(9)])
    host = Worker("one")
    whole = {
        "state": "succeeded",
        "stop_reason": "end_turn",
        "structured": {"stop_reason": "max_tokens"},
    }
    cut = {"state": "succeeded", "stop_reason": "max_tokens", "text": "and the"}
    host.outcome = lambda task: whole if task["prompt"] == "p0" else cut
    batch.run(host)
    found = cut_short(batch.journal)
    assert found == {"times": 8, "lines": [2, 3, 4, 5, 6]}
    said = "8 answers were cut off before the end: lines 2, 3, 4, 5, 6, … of the input (raise --max-tokens)"
    assert not_whole({"cut_off": found}) == [said]
    assert not_whole({"cut_off": {"times": 0, "lines": []}}) == []
    table = ResultTable(tmp_path / "out.csv", batch.journal)
    first, second = list(batch.journal.results(0, ordered=True))[:2]
    assert b"cut off" not in table.row(first[1])
    assert b"the answer was cut off at its longest length (raise --max-tokens)" in table.row(second[1])


def test_what_a_host_calls_an_error_is_no_crash_here(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["p"])
    batch.run(Worker("one"))
    with batch.journal.transaction():
        batch.journal._db.execute("UPDATE line SET state = 3")
        line = json.dumps({"n": 1, "id": "x", "state": "failed", "error": {"code": 7, "message": None}})
        batch.journal._db.execute("UPDATE result SET line = ?", (line.encode(),))
    assert [cause.code for cause in causes(batch.journal)] == ["failed"]


def test_a_finished_batch_says_when_and_a_retry_counts_both_costs(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a", "b"])
    host = Worker("one")
    host.outcome = lambda task: {"state": "failed" if task["prompt"] == "b" else "succeeded", "cost_usd": 0.25}
    batch.run(host)
    assert batch.book.totals.cost_pico == 5 * 10**11
    at = batch.book.finished_at()
    assert at is not None
    batch.close()
    again = Batch(tmp_path)
    assert (again.book.totals.left, again.book.finished_at()) == (0, at)
    again.close()
    more = Batch(tmp_path, retry_failed=True)
    assert (more.book.totals.left, more.book.finished_at()) == (1, None)
    host.outcome = lambda _task: {"state": "succeeded", "text": "new", "cost_usd": 0.5}
    more.run(host)
    assert more.book.totals.cost_pico == 10**12
    assert causes(more.journal) == []
    later = more.book.finished_at()
    assert later is not None
    assert later >= at
    assert {result["n"]: result["text"] for result in more.results()}[2] == "new"
    assert len(more.results()) == 2
    more.close()


def test_a_journal_of_before_has_no_columns_and_no_date(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a"])
    batch.run(Worker("one"))
    batch.close()
    old = Batch(tmp_path)
    with old.journal.transaction():
        old.journal._db.execute("DROP TABLE input")
        old.journal._db.execute("DELETE FROM meta WHERE name IN ('columns', 'finished_at')")
    old.close()
    again = Batch(tmp_path)
    book = BatchLedger(again.journal, OutputFile(again.out, again.journal, ordered=False))
    assert (book.finished_at(), book.totals.left, again.journal.columns_of(1)) == (None, 0, None)
