from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from farmhand.cli import last


def test_a_part_of_an_answer_does_not_stay_where_it_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    last.keep({"state": "succeeded", "text": "old"})
    directory = tmp_path / "farmhand"

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", full)
        last.keep({"state": "succeeded", "text": "new"})
    assert [path.name for path in directory.iterdir()] == ["last.json"]
    assert json.loads((directory / "last.json").read_text())["text"] == "old"
