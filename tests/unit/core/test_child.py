from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from farmhand.core.child import Child, spawn


def start(tmp_path: Path, program: str) -> Child:
    with (tmp_path / "out").open("wb") as out:
        return spawn([sys.executable, "-c", program], dict(os.environ), 0, out.fileno(), out.fileno())


def test_it_has_a_session_of_its_own_and_none_of_our_files(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    program = "import os; print(os.getsid(0) == os.getpid(), len(os.listdir('/dev/fd')) - 1)"
    try:
        assert start(tmp_path, program).wait(20) == 0
    finally:
        os.close(read)
        os.close(write)
    assert (tmp_path / "out").read_text() == "True 3\n"


def test_signals_that_python_ignores_end_it_all_the_same() -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    assert spawn(["sh", "-c", "kill -s PIPE $$"], {}, 0, 1, 2).wait(20) == -signal.SIGPIPE


def test_how_it_ended_is_known_once_and_for_ever(tmp_path: Path) -> None:
    child = start(tmp_path, "raise SystemExit(7)")
    assert child.wait(20) == 7
    assert child.poll() == 7
    child.end(1)


def test_it_is_asked_to_end_and_killed_if_it_does_not(tmp_path: Path) -> None:
    polite = start(tmp_path, "import time; time.sleep(600)")
    assert polite.poll() is None
    polite.end(20)
    assert polite.status == -signal.SIGTERM
    stubborn = start(
        tmp_path,
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)",
    )
    while not (tmp_path / "out").read_text():
        assert stubborn.wait(0.01) is None
    stubborn.end(0.2)
    assert stubborn.status == -signal.SIGKILL


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spawn(["no-such-program-at-all"], {}, 0, 1, 2)
