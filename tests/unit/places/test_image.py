"""The image of the containers is built once, however many commands ask for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farmhand.places import image


def test_commands_that_begin_together_build_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    waiting = threading.Event()

    def build(_: Path, name: str, base: str, say: image.Say) -> None:
        assert waiting.wait(60)
        built.append(f"{name} on {base}")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(image, "name_of", lambda *_: "ours:1")
    monkeypatch.setattr(image, "_exists", lambda name: any(each.startswith(name) for each in built))
    monkeypatch.setattr(image, "_build", build)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    with ThreadPoolExecutor(2) as commands:
        names = list(commands.map(lambda _: image.ensure(tmp_path, say, "debian"), range(2)))
    assert names == ["ours:1", "ours:1"]
    assert built == ["ours:1 on debian"]
    assert said == ["waiting for another command that builds an image"]
