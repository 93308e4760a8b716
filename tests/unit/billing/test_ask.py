"""What becomes of an asking when the machine is busy: never a verdict that was not seen."""

from __future__ import annotations

import inspect
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from farmhand.billing import Report, find


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    (made / ".bashrc").write_text("A=1\n")
    return made


def look(home: Path) -> Report:
    return find(home, {"PATH": "/usr/bin:/bin"}, root=home.parent / "root", ask=False)


def test_the_supervisor_s_source_is_read_by_one_thread(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """linecache is not made for several: out of Ansible's zip it then has an OSError without errno or file."""
    real = inspect.getsource

    def source(of: Any) -> str:
        if threading.current_thread() is not threading.main_thread():
            raise OSError("could not get source code")
        return real(of)

    monkeypatch.setattr(inspect, "getsource", source)
    assert look(home).certain


@pytest.mark.parametrize(
    "error", [OSError("could not get source code"), BlockingIOError(11, "Resource temporarily unavailable")]
)
def test_a_machine_that_can_start_nothing_more_is_no_verdict(
    home: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def popen(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "Popen", popen)
    report = look(home)
    assert {verdict.billed for verdict in report.verdicts} == {"unknown"}
    assert str(error) in report.line()
