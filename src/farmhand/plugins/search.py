"""Look for API keys and login tokens everywhere a host could keep one: files, processes, the journal. Reads only.

A place is named; what was found in it is not: no caller ever gets any part of a key.
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
#: Where the distribution's own files are not; /proc is looked at by `processes`, the journal by `journal`.
ROOTS = ("/boot", "/etc", "/home", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var")  # noqa: S108 - read only
_SKIPPED = ("/run/log/journal", "/var/log/journal", "/run/user", "/var/lib/docker", "/var/lib/containerd")
_CHUNK = 1 << 20
_OVERLAP = 1024


def holds_key(stream: IO[bytes]) -> bool:
    """Whether a key is in `stream`, read in pieces that overlap."""
    tail = b""
    while chunk := stream.read(_CHUNK):
        if KEY.search(tail + chunk):
            return True
        tail = chunk[-_OVERLAP:]
    return False


def files(roots: Iterable[str] = ROOTS, ignored: Iterable[str] = ()) -> Iterator[str]:
    """Paths of regular files under `roots` that hold a key; directories in `ignored` are left out."""
    left_out = {os.path.normpath(path) for path in (*_SKIPPED, *ignored)}
    for root in roots:
        for directory, names, entries in os.walk(root):
            names[:] = [name for name in names if os.path.join(directory, name) not in left_out]
            for path in (os.path.join(directory, entry) for entry in entries):
                if _file_holds_key(path):
                    yield path


def _file_holds_key(path: str) -> bool:
    """False for what is no regular file, and for what is gone by the time it is looked at."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with open(handle, "rb") as stream:
        return stat.S_ISREG(os.fstat(handle).st_mode) and holds_key(stream)


def processes(proc: Path = Path("/proc")) -> Iterator[str]:
    """`PID (command): environ|cmdline` of each process that has a key there."""
    for entry in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        for part in ("environ", "cmdline"):
            try:
                found = KEY.search((entry / part).read_bytes())
                command = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
            except OSError:  # the process has ended, or is the kernel's
                continue
            if found:
                yield f"{entry.name} ({command}): {part}"


def journal(command: Iterable[str] = ("journalctl", "--no-pager", "--quiet", "--all", "--output=cat")) -> bool:
    """Whether a key is in the journal. Raises OSError when it cannot be read."""
    with subprocess.Popen(list(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None  # noqa: S101 - Popen was given a pipe
        found = holds_key(process.stdout)
        process.kill() if found else process.wait()
    if not found and process.returncode:
        raise OSError(process.returncode, "journalctl failed")
    return found
