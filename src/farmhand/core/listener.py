"""Whose the process is that listens on a port of this machine. Standard library only."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_LISTENS = "0A"


def of_user(port: int, user: int) -> bool:
    """Return whether all listeners on this port are the user's. Only Linux tells. Source: proc(5), net/tcp."""
    users = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", name).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and fields[1].endswith(f":{port:04X}"):
                    users.add(int(fields[7]))
    return users <= {user}
