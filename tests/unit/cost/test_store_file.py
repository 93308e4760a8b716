"""The cost store on a disk that is full or read-only, or while another process holds it."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.cost import store as stores
from farmhand.cost.store import CostStore, StoreDamaged, StoreUnwritable
from tests.unit.cli.test_cost import Farm, farm
from tests.unit.cost.ledgers import charge
from tests.unit.cost.test_merge import FakeAgent

__all__ = ["farm"]


def test_a_store_that_cannot_be_written_is_read_and_what_is_new_counts(farm: Farm) -> None:
    before = farm.json()["whole"]["requests"]
    # SQLite shares a file by this one, which it cannot make on a read-only disk.
    (farm.directory / "cost.db-shm").mkdir()
    content = (farm.directory / "cost.db").read_bytes()
    for arguments in (("--no-merge",), ()):
        said = farm.run("--json", *arguments)
        assert "cannot be used: attempt to write a readonly database; it is only read" in said.stderr
    assert farm.json("--no-merge")["whole"]["requests"] == before
    farm.add("farm3", FakeAgent("u3", [charge(1)]))
    assert farm.json()["whole"]["requests"] == before + 1
    assert farm.json("--no-merge")["whole"]["requests"] == before, "nothing was kept"
    assert (farm.directory / "cost.db").read_bytes() == content


def test_a_full_disk_is_told_and_a_store_that_is_not_there_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cost.db"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NotConfigured, match="cannot be opened"):
        CostStore(path, in_memory=True)
    CostStore(path).close()
    monkeypatch.setattr(stores, "opened", full)
    with pytest.raises(StoreUnwritable, match="cannot be written: No space left on device"):
        CostStore(path)
    with closing(CostStore(path, in_memory=True)) as store:
        assert store.rows("SELECT count(*) FROM charge") == [(0,)]
    path.unlink()
    with pytest.raises(NotConfigured, match="cannot be opened: No space left on device"):
        CostStore(path)


def test_a_store_that_another_process_holds_is_said_to_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_BUSY_S", 0.1)
    CostStore(tmp_path / "cost.db").close()
    with closing(sqlite3.connect(tmp_path / "cost.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreDamaged, match=r"another process holds the cost store .*cost\.db") as held:
            CostStore(tmp_path / "cost.db")
    assert "once that has ended" in held.value.hint
