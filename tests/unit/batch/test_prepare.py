from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from farmhand.batch.begin import InvalidInput
from farmhand.batch.journal import Journal
from farmhand.batch.names import id_of
from farmhand.core.errors import UsageError
from farmhand.core.ids import again_id, is_again, line_key
from farmhand.core.task import TASK_ID
from tests.support.places import Worker
from tests.unit.batch.fake import KEY, Batch


def problems(directory: Path, lines: list[Any]) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        Batch(directory, lines)
    assert not (directory / "out.jsonl").exists()
    assert not list(directory.glob("*.farmhand*"))
    return caught.value.lines


def test_every_error_has_its_line_and_nothing_is_written(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        [
            {"id": "a", "prompt": "fine"},
            {"prompt": " "},
            {"id": "a", "prompt": "again"},
            {"prompt": "x", "colour": "red"},
            {"prompt": "x", "max_tokens": 0},
            {"id": "no good", "prompt": "x"},
            {"prompt": "x", "model": "nothing"},
            {"prompt": "x", "schema": {"type": 1}},
            {"prompt": f"my key is {KEY}"},
            {"prompt": "x", "batch": "b"},
        ],
    )
    for line, words in zip(
        found,
        [
            "line 2 is no task: the prompt is empty",
            "line 3 has the id 'a', as line 1 has",
            "line 4 is no task: Object contains unknown field `colour`",
            "line 5 is no task: max_tokens",
            "line 6 has the id 'no good'",
            "line 7 is no task: unknown model",
            "line 8 is no task: not a JSON Schema",
            "line 9 holds the API key itself",
            "line 10 has a batch of its own",
        ],
        strict=True,
    ):
        assert line.startswith(words)
    assert KEY not in "".join(found)


def test_an_id_that_is_a_number_is_its_digits_and_what_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [{"id": 7, "prompt": "x"}, {"id": "8", "prompt": "x"}])
    host = Worker("one")
    batch.run(host)
    assert [result["id"] for result in batch.results()] == ["7", "8"]
    batch.close()
    again = Batch(tmp_path)
    assert again.book.totals.left == 0
    again.close()
    (tmp_path / "more").mkdir()
    lines = [{"id": wrong, "prompt": "x"} for wrong in (True, 7.5, ["a"], -7, 10**70)] + [{"id": 7, "prompt": "x"}] * 2
    found = problems(tmp_path / "more", lines)
    words = ["true, which is neither", "7.5, which is neither", '["a"], which is neither', "-7, which does not match"]
    for line, said in zip(found, [*words, "1000", "'7', as line 6"], strict=True):
        assert f"has the id {said}" in line


def test_many_errors_are_counted(tmp_path: Path) -> None:
    found = problems(tmp_path, [{"prompt": ""}] * 50)
    assert len(found) == 21
    assert found[-1] == "and 30 more"


def test_an_empty_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tasks"):
        Batch(tmp_path, [])


def test_ids_are_the_same_every_time_and_fit() -> None:
    assert id_of("b1", 7, b"body") == id_of("b1", 7, b"body") == "b1-7-230d8358"
    assert TASK_ID.fullmatch(id_of("b" * 64, 10**9, b"body"))
    assert len(again_id("x" * 64, 2)) == 64
    assert again_id("x" * 63 + "a", 2) != again_id("x" * 63 + "b", 2)
    for size in (1, 59, 60, 61, 62, 63, 64):
        a, b = "x" * (size - 1) + "a", "x" * (size - 1) + "b"
        assert {line_key(a), *(line_key(again_id(a, n)) for n in (2, 9, 10, 999))} == {line_key(a)}
        assert line_key(b) != line_key(a)
        assert not is_again(a)
        assert is_again(again_id(a, 10))


def test_another_input_or_other_options_are_refused(tmp_path: Path) -> None:
    Batch(tmp_path, ["a", "b"]).close()
    with pytest.raises(UsageError, match="begun with other values of the option --ordered"):
        Batch(tmp_path, ordered=True)
    (tmp_path / "in.jsonl").write_text(json.dumps("changed"))
    with pytest.raises(UsageError, match="the input is not the one"):
        Batch(tmp_path)


def test_one_client_at_a_time(tmp_path: Path) -> None:
    first = Batch(tmp_path, ["a"])
    with pytest.raises(UsageError, match="another farmhand batch is at work"):
        Journal(tmp_path / "out.jsonl.farmhand")
    first.close()
    Journal(tmp_path / "out.jsonl.farmhand").close()


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("something else entirely, and long enough to be read as a header")
    with pytest.raises(UsageError, match="is not a journal"):
        Journal(tmp_path / "x")
