"""Search for API keys and login tokens everywhere on a host: files, processes, the journal. Reads only.

It reports places and not what was found in them: no caller ever gets any part of a key.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ..core import keys

KEY = re.compile(keys.KEY.pattern.encode(), re.IGNORECASE)
#: Directories other than the distribution's own. /proc is searched by `processes`, the journal by `journal`.
ROOTS = ("/boot", "/etc", "/home", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var")  # noqa: S108 - read only
_SKIPPED = ("/run/log/journal", "/var/log/journal", "/run/user", "/var/lib/docker", "/var/lib/containerd")
_CHUNK = 1 << 20
_OVERLAP = 1024


def holds_key(stream: IO[bytes]) -> bool:
    """Return whether `stream`, read in overlapping pieces, contains a key."""
    tail = b""
    while chunk := stream.read(_CHUNK):
        if KEY.search(tail + chunk):
            return True
        tail = chunk[-_OVERLAP:]
    return False


def files(roots: Iterable[str] = ROOTS, ignored: Iterable[str] = ()) -> Iterator[str]:
    """Yield the paths of regular files under `roots` that contain a key; directories in `ignored` are skipped."""
    left_out = {os.path.normpath(path) for path in (*_SKIPPED, *ignored)}
    for root in roots:
        for directory, names, entries in os.walk(root):
            names[:] = [name for name in names if os.path.join(directory, name) not in left_out]
            for path in (os.path.join(directory, entry) for entry in entries):
                if _file_holds_key(path):
                    yield path


def _file_holds_key(path: str) -> bool:
    """Return False also for anything but a regular file, and for a file that has disappeared."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with open(handle, "rb") as stream:
        return stat.S_ISREG(os.fstat(handle).st_mode) and holds_key(stream)


def processes(proc: Path = Path("/proc")) -> Iterator[str]:
    """Yield `PID (command): environ|cmdline` for each process that has a key there."""
    for entry in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        for part in ("environ", "cmdline"):
            try:
                found = KEY.search((entry / part).read_bytes())
                command = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
            except OSError:  # the process has ended, or belongs to the kernel
                continue
            if found:
                yield f"{entry.name} ({command}): {part}"


def journal(command: Iterable[str] = ("journalctl", "--no-pager", "--quiet", "--all", "--output=cat")) -> bool:
    """Return whether the journal contains a key. Raise OSError if it cannot be read."""
    with subprocess.Popen(list(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None  # noqa: S101 - Popen was given a pipe
        found = holds_key(process.stdout)
        process.kill() if found else process.wait()
    if not found and process.returncode:
        raise OSError(process.returncode, "journalctl failed")
    return found
