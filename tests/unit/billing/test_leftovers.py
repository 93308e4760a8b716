"""What a killed asking has left is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from farmhand.billing import leftovers


def ended_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_only_what_a_dead_process_of_this_user_has_left_is_removed(tmp_path: Path) -> None:
    dead = tmp_path / f"{leftovers.PREFIX}{ended_pid()}-abc"
    kept = [tmp_path / f"{leftovers.PREFIX}{os.getpid()}-abc", tmp_path / f"{leftovers.PREFIX}x-abc"]
    for path in (dead, *kept):
        (path / "slot").mkdir(parents=True)
        (path / "slot/out").write_text("sk-ant-test-one\n")
    link = tmp_path / f"{leftovers.PREFIX}{ended_pid()}-link"
    link.symlink_to(kept[0])
    leftovers.remove(tmp_path, {os.geteuid() + 1})
    assert dead.exists()
    leftovers.remove(tmp_path, {os.geteuid()})
    assert not dead.exists()
    assert all((path / "slot/out").exists() for path in kept)
    assert link.is_symlink()


def in_order(number: int) -> None:
    with leftovers.signals_end_in_order():
        os.kill(os.getpid(), number)
        signal.pause()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_what_was_begun(number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as ended:
        in_order(number)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) == signal.SIG_DFL


def test_who_handles_a_signal_goes_on_doing_so() -> None:
    was = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with leftovers.signals_end_in_order():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, was)
