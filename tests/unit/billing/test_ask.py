"""What becomes of an asking when the machine is busy: never a verdict that was not seen."""

from __future__ import annotations

import inspect
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from farmhand.billing import Report, Verdict, ask, find, search

KEY = "sk-ant-test-first-0000000000"


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


_HALF = """\
#!/bin/sh
mkdir "$HOME/first-$KIND" 2>/dev/null && exec /usr/bin/env "$@"
printf 'A=1\\000'
sleep 30
"""


def program(home: Path, name: str, text: str) -> str:
    path = home.parent / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return f"{path.parent}:/usr/bin:/bin"


def told(home: Path, **given: Any) -> Verdict:
    report = find(home, root=home.parent / "root", ask=False, **given)
    return next(verdict for verdict in report.verdicts if verdict.kind == "bash interactive")


def test_an_environment_that_is_cut_off_is_no_verdict(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", program(home, "env", _HALF))
    (home / ".bashrc").write_text(f"export KIND=$$ ANTHROPIC_API_KEY={KEY}\n")
    verdict = told(home, environ={"PATH": "/usr/bin:/bin"}, limit_s=3.0)
    assert (home / "first-").exists()
    assert (verdict.billed, "within 3 s" in verdict.reason) == ("unknown", True), verdict


def test_a_wrapper_that_is_stopped_before_the_call_that_counts_is_no_verdict(home: Path) -> None:
    calls = f'command claude --version\n  sleep 30\n  ANTHROPIC_API_KEY={KEY} command claude "$@"'
    wrapper = f"claude() {{\n  {calls}\n}}\n"
    (home / ".bashrc").write_text(wrapper)
    verdict = told(home, environ={"PATH": "/usr/bin:/bin"}, limit_s=3.0)
    assert (verdict.billed, "within 3 s" in verdict.reason) == ("unknown", True), verdict
    (home / ".bashrc").write_text(wrapper.replace("  sleep 30\n", ""))
    assert told(home, environ={"PATH": "/usr/bin:/bin"}).billed == "api_key"


def test_a_cli_that_is_too_slow_to_say_who_pays_makes_nothing_green(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "CLI_LIMIT_S", 1.0)
    monkeypatch.setattr(search, "CLI_LIMIT_S", 1.0)
    environ = {"PATH": program(home, "claude", "#!/bin/sh\nexec sleep 30\n")}
    verdict = told(home, environ=environ)
    assert (verdict.billed, verdict.reason) == ("unknown", "claude auth status gave no answer within 1 s")
    (home / ".bashrc").write_text(f"export ANTHROPIC_API_KEY={KEY}\n")
    assert told(home, environ=environ).billed == "api_key"


def test_what_no_mark_follows_may_be_cut_off() -> None:
    marks = b"\0\0before\nA=1\0\0\0whole\n\0\0typed\nB=2\0"
    assert ask.sections_of(marks) == {"before": b"A=1\0", "whole": b""}
    assert ask.sections_of(marks + b"\0\0whole\n")["typed"] == b"B=2\0"
    assert ask.sections_of(b"") == {}
