"""The image that the tests' hosts start from: built once for each state of the sources, the older ones removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.farm import image


class Engine:
    """A Docker engine that has a base image, and images of built hosts."""

    def __init__(self, *names: str) -> None:
        self.base = "sha256:base"
        self.names = list(names)
        self.built: list[str] = []

    def check(self, argv: Sequence[str]) -> str:
        if argv[1:3] == ["image", "inspect"]:
            return self.base
        assert argv[1:3] == ["image", "ls"]
        wanted = argv[argv.index("--filter") + 1].removeprefix("reference=")
        return "\n".join(name for name in self.names if wanted in (name, name.partition(":")[0]))

    def run(self, argv: Sequence[str]) -> None:
        assert argv[1:3] == ["image", "rm"]
        self.names.remove(argv[3])

    def build(self, root: Path, name: str) -> None:
        self.built.append(name)
        self.names.append(name)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine("farmhand-base:bookworm", "farmhand-host:older")
    monkeypatch.setattr(image, "check", engine.check)
    monkeypatch.setattr(image, "run", engine.run)
    monkeypatch.setattr(image, "_build", engine.build)
    return engine


def test_it_is_built_once_and_the_older_one_is_removed(engine: Engine, tmp_path: Path) -> None:
    first = image.host_image(tmp_path)
    assert image.host_image(tmp_path) == first
    assert engine.built == [first]
    assert engine.names == ["farmhand-base:bookworm", first]


def test_other_sources_and_another_base_are_another_image(engine: Engine, tmp_path: Path) -> None:
    names = [image.host_image(tmp_path)]
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles" / "tasks.yml").write_text("- debug:\n", encoding="ascii")
    names.append(image.host_image(tmp_path))
    engine.base = "sha256:another"
    names.append(image.host_image(tmp_path))
    assert engine.built == names
    assert len(set(names)) == 3
