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


def test_a_machine_without_room_for_a_thread_is_no_verdict(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    report = look(home)
    assert {verdict.billed for verdict in report.verdicts} == {"unknown"}
    assert "can't start new thread" in report.line()


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


def test_a_cli_that_is_stopped_before_it_says_who_pays_makes_nothing_green(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "CLI_LIMIT_S", 1.0)
    monkeypatch.setattr(search, "CLI_LIMIT_S", 1.0)
    environ = {"PATH": program(home, "claude", "#!/bin/sh\nexec sleep 30\n")}
    verdict = told(home, environ=environ)
    reason = "claude auth status was stopped before it answered (after 1 s, or by a signal)"
    assert (verdict.billed, verdict.reason) == ("unknown", reason)
    program(home, "claude", "#!/bin/sh\nkill -9 $$\n")
    verdict = told(home, environ=environ)
    assert (verdict.billed, verdict.reason) == ("unknown", reason)
    (home / ".bashrc").write_text(f"export ANTHROPIC_API_KEY={KEY}\n")
    assert told(home, environ=environ).billed == "api_key"


def test_a_service_manager_that_gives_no_answer_makes_nothing_green(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be what gives the key to all that a desktop session starts."""
    monkeypatch.setattr(ask, "MANAGER_LIMIT_S", 0.5)
    environ = {"PATH": program(home, "systemctl", "#!/bin/sh\nexec sleep 30\n"), "XDG_RUNTIME_DIR": str(home)}
    report = find(home, environ, root=home.parent / "root")
    assert {verdict.billed for verdict in report.verdicts} == {"unknown"}
    assert report.late == {verdict.kind for verdict in report.verdicts}
    assert "systemctl --user show-environment gave no answer within 0.5 s" in report.line()
    (home / ".bashrc").write_text(f"export ANTHROPIC_API_KEY={KEY}\n")
    assert find(home, environ, root=home.parent / "root").metered


@pytest.mark.parametrize(("error", "billed"), [(BlockingIOError, "unknown"), (FileNotFoundError, "none")])
def test_a_service_manager_that_is_not_there_is_none_that_could_not_be_started(
    home: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError], billed: str
) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise error(11, "no room")

    environ = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(home)}
    monkeypatch.setattr(subprocess, "run", run)
    report = find(home, environ, root=home.parent / "root")
    assert {verdict.billed for verdict in report.verdicts} == {billed}
    assert ("systemctl --user show-environment could not be started: no room" in report.line()) == (billed == "unknown")


def test_what_no_mark_follows_may_be_cut_off() -> None:
    marks = "\0\0before\nA=1\0\0\0whole\n\0\0typed\nB=2\0"
    assert ask.sections_of(marks) == {"before": "A=1\0", "whole": ""}
    assert ask.sections_of(f"{marks}\0\0whole\n")["typed"] == "B=2\0"
    assert ask.sections_of("") == {}
