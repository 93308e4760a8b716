from __future__ import annotations

import subprocess
import sys

import pytest

from farmhand.core import systemd

#: PR_GET_DUMPABLE and the core limit, after the call, in a process of its own.
_LOOK = """
import ctypes, resource
from farmhand.core import systemd
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
systemd.keep_memory_private()
print(before, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_memory_is_kept_private() -> None:
    """Dumpable before, not after: no core, no ptrace and no /proc/PID/mem for processes of the same user."""
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0", "0", "0"]


def test_sockets_of_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert systemd.inherited_sockets() == {}


def test_without_a_service_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
