"""Which users the worker's sandboxes get."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from farmhand.cloud import launcher
from farmhand.cloud.launcher import UIDS, first_uid

ALL = "         0          0 4294967295\n"
#: Docker without root, and with userns-remap.
ROOTLESS = "         0       1000          1\n         1     165536      65536\n"
REMAPPED = "         0     165536      65536\n"


def test_every_user_exists_where_the_engine_is_root() -> None:
    assert first_uid(2_001_210_000, ALL, ALL) == 2_001_210_000


@pytest.mark.parametrize("maps", [(ROOTLESS, ROOTLESS), (REMAPPED, ROOTLESS)])
def test_few_users_are_enough_and_differ_by_pair(maps: tuple[str, str]) -> None:
    """Public report of the fault: podman#20615."""
    found = {first_uid(2_000_000_000 + pair * 1000, *maps) for pair in range(50)}
    assert len(found) == 50
    assert min(found) > 1000
    assert max(found) + UIDS <= 65_534


def test_no_users_are_said() -> None:
    with pytest.raises(OSError, match="too few users"):
        first_uid(2_000_000_000, "0 1000 1\n", ALL)


def test_a_process_can_become_that_user() -> None:
    program = (
        "import os, sys; from pathlib import Path; from farmhand.cloud.launcher import first_uid, MAPS; "
        "uid = first_uid(2_001_210_000, *(Path('/proc/self', name).read_text() for name in MAPS)); "
        "os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid); print(os.getuid())"
    )
    words = [
        "unshare",
        "--user",
        "--keep-caps",
        "sh",
        "-c",
        'echo; read go; exec "$@"',
        "sh",
        sys.executable,
        "-c",
        program,
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # it is in the namespace
        for name in launcher.MAPS:
            Path(f"/proc/{process.pid}/{name}").write_text("0 0 1\n1 100000 65535\n")
        out, _ = process.communicate("go\n", timeout=60)
    assert process.returncode == 0
    assert 2000 <= int(out) < 62_000
