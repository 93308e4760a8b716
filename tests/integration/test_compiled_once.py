"""Ansible's modules are compiled once, and what runs is always what was sent."""

from __future__ import annotations

import os
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


#: As ansible-playbook does: what a source imports of Ansible's own modules, and how it looks for that.
LOOK = f"""
import sys
sys.path[:0] = [{str(Path(compiled_once.__file__).parent)!r}]
import compiled_once
compiled_once.keep(sys.argv[1])
from ansible.executor import module_common as common
data = open(sys.argv[2], "rb").read()
for source in (data, data.decode()):  # Ansible has either, of a file and of what it writes itself
    try:
        tree = common._compile_module_ast("b", source)
        found = common.ModuleDepFinder("ansible.module_utils.a.b", tree, sys.argv[3] == "1")
    except common.AnsibleError as error:
        print(error)
    else:
        print(sorted(found.submodules), sorted(found.optional_imports))
"""


def imported(kept: Path, source: str, *, is_package: bool = False, program: str = "ansible-try") -> str:
    """What ansible-playbook finds in a source."""
    directory = kept.parent
    (directory / program).write_text(LOOK)
    (directory / "source").write_text(source)
    argv = [str(word) for word in (PYTHON, directory / program, kept, directory / "source", int(is_package))]
    paths = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    environ = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=environ).stdout


def test_what_a_source_imports_is_found_once_and_is_what_ansible_finds(kept: Path) -> None:
    kept.mkdir()
    relative = "from . import x\ntry:\n    import ansible.module_utils.c\nexcept ImportError:\n    pass\n"
    for source in (relative, "import ansible.module_utils.d\n", "import os\n"):
        for is_package in (False, True):
            expected = imported(kept, source, is_package=is_package, program="other")
            before = len([*kept.iterdir()])
            for _ in range(2):
                assert imported(kept, source, is_package=is_package) == expected
                assert len([*kept.iterdir()]) == before + 1
    for one in kept.iterdir():
        one.write_bytes(b"")
    assert "('ansible', 'module_utils', 'd')" in imported(kept, "import ansible.module_utils.d\n")


def test_a_source_that_cannot_be_parsed_is_ansible_s_error_each_time(kept: Path) -> None:
    kept.mkdir()
    said = {line for _ in range(2) for line in imported(kept, "import\n").splitlines()}
    assert len(said) == 1
    assert "Unable to compile 'b'" in said.pop()
    assert [*kept.iterdir()] == []
