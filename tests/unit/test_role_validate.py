"""What the roles validate a file with before it lands writes nothing beside it.

Ansible's temporary directory is in the login's home; what root writes there the login cannot remove again.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "src" / "farmhand" / "agent"


def validations(value: Any) -> Iterator[str]:
    """Every `validate` in tasks, also of those in blocks."""
    if isinstance(value, dict):
        if isinstance(value.get("validate"), str):
            yield value["validate"]
        value = list(value.values())
    for part in value if isinstance(value, list) else []:
        yield from validations(part)


WITH_PYTHON = sorted(
    command
    for path in ROOT.glob("roles/*/tasks/*.yml")
    for command in validations(yaml.safe_load(path.read_text(encoding="utf-8")))
    if command.startswith("/usr/bin/python3")
)


def test_there_is_one() -> None:
    assert WITH_PYTHON


@pytest.mark.parametrize("command", WITH_PYTHON)
def test_it_writes_nothing_and_finds_what_is_wrong(tmp_path: Path, command: str) -> None:
    for name in ("bridge.py", "sandbox.py"):
        shutil.copy(AGENT / name, tmp_path / name)
        done = subprocess.run(shlex.split(command % (tmp_path / name)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (tmp_path / "bad.py").write_text("def f(:\n")
    assert subprocess.run(shlex.split(command % (tmp_path / "bad.py")), capture_output=True, check=False).returncode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.py", "bridge.py", "sandbox.py"]
