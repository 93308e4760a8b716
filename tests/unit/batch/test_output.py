from __future__ import annotations

import stat
from pathlib import Path

import pytest

from farmhand.core.errors import UsageError
from tests.support.places import Worker
from tests.unit.batch.fake import Batch


def finished(directory: Path, *, ordered: bool = False) -> Batch:
    batch = Batch(directory, [f"p{n}" for n in range(6)], ordered=ordered)
    host = Worker("one")
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
    Batch(tmp_path, retry_failed=True).close()
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


@pytest.mark.parametrize("ordered", [False, True])
def test_what_the_output_has_lost_is_written_again_and_no_worker_asked(tmp_path: Path, ordered: bool) -> None:
    batch = finished(tmp_path, ordered=ordered)
    cost = batch.book.totals.cost_pico
    batch.close()
    whole = batch.out.read_bytes()
    lines = whole.splitlines(keepends=True)
    for rest in (lines[:2], lines[1:], lines[:1] + lines[3:], []):
        batch.out.write_bytes(b"".join(rest))
        again = Batch(tmp_path, ordered=ordered)
        assert (again.book.totals.left, again.book.totals.cost_pico) == (0, cost)
        again.close()
        assert batch.out.read_bytes() == whole


def test_what_a_power_cut_took_from_the_journal_is_asked_for_again_and_written_once(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(6)])
    batch.close()
    before = batch.journal.path.read_bytes()
    batch = Batch(tmp_path)
    worker = Worker("one")
    batch.run(worker)
    cost = batch.book.totals.cost_pico
    batch.close()
    batch.journal.path.write_bytes(before)
    again = Batch(tmp_path)
    assert (again.book.totals.left, again.results()) == (6, [])
    again.run(worker)
    assert again.book.totals.cost_pico == cost
    assert sorted(result["n"] for result in again.results()) == [1, 2, 3, 4, 5, 6]
    assert len(worker.ran) == 6


def test_nobody_else_reads_the_journal(tmp_path: Path) -> None:
    finished(tmp_path).close()
    assert stat.S_IMODE((tmp_path / "out.jsonl.farmhand").stat().st_mode) == 0o600


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
    totals = batch.journal.totals()
    assert (totals["succeeded"], totals["failed"]) == (4, 2)
    batch.close()
    again = Batch(tmp_path, ordered=ordered, retry_failed=True)
    assert again.book.totals.left == 2
    host = Worker("one")
    again.run(host)
    assert [wire.rpartition(".")[2] for wire in host.ran] == ["r2", "r2"]
    numbers = [result["n"] for result in again.results()]
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
    assert not ordered or numbers == sorted(numbers)
    assert not any("." in result["id"] for result in again.results())


def test_a_full_disk_ends_it_with_a_hint_and_the_next_run_goes_on(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [f"p{n}" for n in range(6)])
    worker = Worker("one")
    worker.outcome = lambda task: {"state": "succeeded", "text": "x" * 500_000}
    batch.journal._db.execute("PRAGMA max_page_count = 100")
    batch.run(worker)
    error = batch.coordinator.error
    assert error is not None
    assert (error.code, "make room" in error.hint, batch.results()) == ("output", True, [])
    batch.close()
    again = Batch(tmp_path)
    again.run(worker)
    assert again.coordinator.error is None
    assert [result["n"] for result in again.results()] == [1, 2, 3, 4, 5, 6]
    assert len(worker.ran) == 6
