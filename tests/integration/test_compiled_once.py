"""Ansible's modules are compiled once, and what runs is always what was sent."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import compiled_once

#: As a module that runs from a zip file. The Python of the venv does it already.
PYTHON = Path(sys.base_prefix, "bin", "python3")
RUN = f"""
import gc, sys
sys.path[:0] = [{str(Path(compiled_once.__file__).parent)!r}]
import compiled_once
compiled_once.keep(sys.argv[1])
sys.path[:0] = [sys.argv[2]]
import sent
print(sent.value, sent.function.__code__.co_filename, gc.get_threshold()[0])
"""


def run(kept: Path, value: int, archive: str, program: str = "AnsiballZ_try.py") -> list[str]:
    """What a module prints that was sent as this archive: its value, where its code says it is from, the threshold."""
    directory = kept.parent
    (directory / program).write_text(RUN)
    with zipfile.ZipFile(directory / archive, "w") as file:
        file.writestr("sent.py", f"value = {value}\ndef function(): ...\n")
    argv = [PYTHON, directory / program, kept, directory / archive]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert said[:2] == [str(value), f"{directory / archive}/sent.py"]
    return said


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def test_it_is_kept_by_its_source(kept: Path) -> None:
    kept.mkdir()
    run(kept, 1, "a.zip")
    [one] = kept.iterdir()
    before = one.stat()
    run(kept, 2, "a.zip")
    run(kept, 1, "b.zip")
    assert (len([*kept.iterdir()]), one.stat().st_ino) == (2, before.st_ino)
    one.write_bytes(b"")
    run(kept, 1, "c.zip")
    assert one.stat().st_size == before.st_size


def test_without_a_directory_it_is_compiled_each_time(kept: Path) -> None:
    run(kept, 3, "a.zip")
    assert not kept.exists()


def test_another_program_is_as_it_was(kept: Path) -> None:
    assert run(kept, 4, "a.zip", "jada-agent")[2] != run(kept, 4, "a.zip")[2]
