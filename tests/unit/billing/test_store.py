"""Backups, the journal, and taking everything back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farmhand.billing import store
from farmhand.core import files
from tests.unit.billing.conftest import Station

KEY = "sk-ant-test-first-0000000000"
EXPORT = f"export ANTHROPIC_API_KEY={KEY}\n"


def test_backups_are_private_and_the_journal_has_no_key(station: Station) -> None:
    station.put({".zshrc": EXPORT})
    (station.home / ".zshrc").chmod(0o640)
    done = station.present()
    [backup] = done["backups"]
    assert (station.home / ".zshrc").stat().st_mode & 0o777 == 0o640
    assert station.store.directory.stat().st_mode & 0o777 == 0o700
    for path in station.store.directory.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert Path(backup).read_text() == EXPORT
    assert KEY not in station.store.journal.read_text()


def test_our_lines_are_taken_back_out_of_a_file_that_was_changed_since(station: Station) -> None:
    station.put({".zshrc": f"A=1\n{EXPORT}B=2\n", "repos.env": "X=1\n"})
    station.present()
    (station.home / ".zshrc").write_text("# new\n" + station.read(".zshrc") + "C=3\n")
    (station.home / "repos.env").write_text(station.read("repos.env") + "Y=2\n")
    assert station.absent()["left"] == []
    assert station.read(".zshrc") == f"# new\nA=1\n{EXPORT}B=2\nC=3\n"
    assert station.read("repos.env") == "X=1\nY=2\n"


def test_what_cannot_be_told_apart_is_left_and_its_backup_named(station: Station) -> None:
    station.put({".zshrc": EXPORT})
    [backup] = station.present()["backups"]
    (station.home / ".zshrc").write_text("rewritten\n")
    done = station.absent()
    assert done["left"] == [f"{station.home}/.zshrc was changed since; take it back by hand from {backup}"]
    assert station.read(".zshrc") == "rewritten\n"
    assert Path(backup).read_text() == EXPORT
    assert [entry["backup"] for entry in station.store.entries()] == [backup]


def test_a_key_that_was_replaced_since_stays_in_the_key_file(station: Station) -> None:
    station.put({".zshrc": EXPORT})
    station.present()
    (station.home / "repos.env").write_text("ANTHROPIC_API_KEY=sk-ant-test-rotated-00000000\n")
    done = station.absent()
    assert "repos.env" in done["left"][0]
    assert station.read("repos.env") == "ANTHROPIC_API_KEY=sk-ant-test-rotated-00000000\n"
    assert station.read(".zshrc") == EXPORT


def test_two_runs_are_taken_back_in_their_order(station: Station) -> None:
    station.put({".zshrc": EXPORT})
    station.present()
    (station.home / ".zshrc").write_text(station.read(".zshrc") + EXPORT)
    station.present()
    station.absent()
    assert station.read(".zshrc") == EXPORT + EXPORT
    assert not (station.home / "repos.env").exists()


def test_a_run_that_breaks_off_is_gone_on_with_or_taken_back(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    station.put({".zshrc": EXPORT, ".bashrc": EXPORT})
    real = files.replace
    written: list[str] = []

    def breaks(path: Path, content: bytes, *, mode: int | None = None) -> None:
        if path.name in (".zshrc", ".bashrc") and written:
            raise OSError(28, "No space left on device", str(path))
        written.extend([path.name] if path.name in (".zshrc", ".bashrc") else [])
        real(path, content, mode=mode)

    monkeypatch.setattr(store, "replace", breaks)
    with pytest.raises(OSError, match="No space left"):
        station.present()
    monkeypatch.undo()
    # The key file is written first: the key is never nowhere.
    assert station.read("repos.env") == f"ANTHROPIC_API_KEY={KEY}\n"
    assert not station.present()["billing"]["metered"]
    assert station.absent()["left"] == []
    assert (station.read(".zshrc"), station.read(".bashrc")) == (EXPORT, EXPORT)
    assert not (station.home / "repos.env").exists()


def test_a_broken_journal_is_named_before_anything_is_touched(station: Station) -> None:
    station.put({".zshrc": EXPORT})
    station.store.directory.mkdir()
    station.store.journal.write_text(json.dumps({"not": "a list"}))
    with pytest.raises(ValueError, match="not a list"):
        station.present()
    assert station.read(".zshrc") == EXPORT
