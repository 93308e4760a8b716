"""Modules in zip files are compiled once, and what runs is always what was sent."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support import compiled_once

RUN = f"""
import sys
sys.path[:0] = [{str(Path(compiled_once.__file__).parent)!r}]
import compiled_once
compiled_once.keep(sys.argv[1])
sys.path[:0] = [sys.argv[2]]
import sent
print(sent.value, sent.value.__code__.co_filename) if callable(sent.value) else print(sent.value)
"""


def run(kept: Path, directory: Path, source: str, name: str) -> str:
    archive = directory / name
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("sent.py", source)
    argv = [sys.executable, "-I", "-S", "-c", RUN, str(kept), str(archive)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_kept_by_its_source(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    assert run(kept, tmp_path, "value = 1", "a.zip") == "1"
    [one] = kept.iterdir()
    before = one.stat()
    assert run(kept, tmp_path, "value = 2", "a.zip") == "2"
    assert run(kept, tmp_path, "value = 1", "b.zip") == "1"
    assert (len([*kept.iterdir()]), one.stat().st_ino) == (2, before.st_ino)
    one.write_bytes(b"")
    assert run(kept, tmp_path, "value = 1", "c.zip") == "1"
    assert one.stat().st_size == before.st_size
    function = "def value() -> None: ..."
    for name in ("d.zip", "e.zip"):  # a traceback names the file that was sent
        assert run(kept, tmp_path, function, name).endswith(f"{name}/sent.py")


def test_without_a_directory_nothing_is_kept(tmp_path: Path) -> None:
    assert run(tmp_path / "none", tmp_path, "value = 3", "a.zip") == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
