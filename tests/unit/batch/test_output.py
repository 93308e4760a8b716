from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.batch.journal import FAILED, SUCCEEDED
from farmhand.core.errors import UsageError
from tests.unit.batch.fake import Batch, Host


def finished(directory: Path, *, ordered: bool = False) -> Batch:
    batch = Batch(directory, [f"p{n}" for n in range(6)], ordered=ordered)
    host = Host("one")
    host.outcome = lambda task: {"state": "failed" if task["prompt"] in ("p1", "p4") else "succeeded"}
    batch.run(host)
    return batch


@pytest.mark.parametrize("tail", [b'{"n": 1', b"{", b'{"n":2,"text":"' + b"x" * 200_000, b"\0" * 5000])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    finished(tmp_path).close()
    whole = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").write_bytes(whole + tail)
    batch = Batch(tmp_path)
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert batch.book.totals.left == 0


def test_a_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    finished(tmp_path).close()
    whole = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").write_bytes(whole.removesuffix(b"\n"))
    batch = Batch(tmp_path)
    assert batch.book.totals.left == 0
    batch.close()
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    (tmp_path / "out.jsonl").write_bytes(whole.removesuffix(b"\n"))
    again = Batch(tmp_path)
    again.output.close()
    (tmp_path / "out.jsonl").write_bytes(whole.removesuffix(b"\n"))
    again.output.drop_failed()
    again.close()
    kept = [line for line in whole.splitlines(keepends=True) if b'"succeeded"' in line]
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(kept)


@pytest.mark.parametrize(
    "tail", [b"my remark", b"# {", b'{"id": "mine"}', b'{"n":1,"id":"mine","state":"failed"}', b"["]
)
def test_a_user_s_own_last_line_is_not_cut_off(tmp_path: Path, tail: bytes) -> None:
    finished(tmp_path).close()
    path = tmp_path / "out.jsonl"
    mine = path.read_bytes() + tail
    for text in (mine, tail):
        path.write_bytes(text)
        with pytest.raises(UsageError, match="choose another --out"):
            Batch(tmp_path)
        assert path.read_bytes() == text


def test_a_line_that_is_in_the_output_and_not_in_the_journal_is_not_run_again(tmp_path: Path) -> None:
    batch = finished(tmp_path)
    before = batch.book.totals.cost_pico
    with batch.journal.transaction():
        batch.journal.db.execute("UPDATE line SET state = 1, cost = NULL WHERE n < 4")
        batch.journal.db.execute("UPDATE host SET cost = cost - 30000000")
    batch.close()
    again = Batch(tmp_path)
    assert again.book.totals.left == 0
    assert again.book.totals.cost_pico == before


@pytest.mark.parametrize(
    "text",
    [
        "something",
        "something\nelse",
        '{"n": 99, "id": "x", "state": "failed"}\n',
        '{"n": 1, "id": "x", "state": "failed"}\n',
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    batch = finished(tmp_path)
    batch.close()
    (tmp_path / "out.jsonl").write_text(text)
    with pytest.raises(UsageError, match="choose another --out"):
        Batch(tmp_path)
    assert (tmp_path / "out.jsonl").read_text() == text


@pytest.mark.parametrize("ordered", [False, True])
def test_failed_lines_run_again_under_new_ids(tmp_path: Path, ordered: bool) -> None:
    batch = finished(tmp_path, ordered=ordered)
    counts = batch.journal.counts()
    assert (counts[SUCCEEDED], counts[FAILED]) == (4, 2)
    batch.close()
    batch = Batch(tmp_path, ordered=ordered)
    batch.output.close()
    assert batch.output.drop_failed() == 2
    batch.journal.close()
    again = Batch(tmp_path, ordered=ordered)
    assert again.book.totals.left == 2
    host = Host("one")
    again.run(host)
    assert [wire.rpartition(".")[2] for wire in host.ran] == ["r2", "r2"]
    numbers = [result["n"] for result in again.results()]
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
    assert not ordered or numbers == sorted(numbers)
    assert not any("." in result["id"] for result in again.results())
