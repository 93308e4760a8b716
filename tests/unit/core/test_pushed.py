"""The note of the push: what is read of a damaged one, and when it has failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farmhand.core.pushed import LATE_S, PushNote, read_note, trouble, write_note

NOW = 1_764_000_000.0


def test_what_is_written_is_read_by_everybody_and_without_keys(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    write_note(path, PushNote(NOW, "a\nb sk-ant-test-0000000000000000"))
    note = read_note(str(path))
    assert (note.at, note.problem[:4]) == (NOW, "a b ")
    assert "sk-ant-test-0000000000000000" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"at": "x"}', b'{"at": 1, "problem": 3}', b"\xff", b"{" * 20_000])
def test_a_note_that_cannot_be_read_says_so(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "note.json").write_bytes(text)
    note = read_note(str(tmp_path / "note.json"))
    assert note.at is None
    assert "note.json cannot be read" in note.problem


@pytest.mark.parametrize("at", [-1.0, 1e11])
def test_a_time_that_is_none_is_not_told(tmp_path: Path, at: float) -> None:
    (tmp_path / "note.json").write_text(f'{{"at": {at}}}')
    assert read_note(str(tmp_path / "note.json")) == PushNote()


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (None, ""),
        ({"at": NOW - LATE_S, "problem": "AccessDenied"}, ""),
        ({"at": NOW - LATE_S - 1, "problem": "AccessDenied"}, "for 15 minutes: AccessDenied"),
        ({"at": NOW - 7200, "problem": ""}, "for 120 minutes: see the journal of jada-cloudwatch there"),
        ({"at": None, "problem": "nothing was pushed yet"}, "yet: nothing was pushed yet"),
    ],
)
def test_it_has_failed_after_a_quarter_of_an_hour(note: dict[str, Any] | None, said: str) -> None:
    assert trouble({"time": NOW, "cloudwatch": note}) == (f"no metrics have reached CloudWatch {said}" if said else "")
