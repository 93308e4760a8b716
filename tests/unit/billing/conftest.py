"""An operator's home in a temporary directory, and the plan for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farmhand.billing.outcome import absent, present
from farmhand.billing.store import Store
from farmhand.billing.wanted import Wanted

Put = Callable[..., None]


class Station:
    """A home, what the role does to it, and what takes that back."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.home.mkdir()
        self.root = directory / "root"
        self.store = Store(directory / "state")

    def put(self, files: dict[str, str | bytes]) -> None:
        for name, text in files.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)

    def read(self, name: str) -> str:
        return (self.home / name).read_bytes().decode()

    def present(self, *, write: bool = True, **wanted: Any) -> dict[str, Any]:
        given = {"ask": False, "ask_shell": False, "date": "2026-11-24", "root": self.root, **wanted}
        return present(Wanted(self.home, self.home / "repos.env", **given), self.store, write=write)

    def absent(self) -> dict[str, Any]:
        return absent(self.store, write=True)


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path)
