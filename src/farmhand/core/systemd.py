"""A service under systemd: inherited sockets, readiness, the watchdog. Also protects the process's memory."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import socket

_FIRST_FD = 3
_PR_SET_DUMPABLE = 4


def inherited_sockets() -> dict[str, socket.socket]:
    """Return the sockets that systemd opened for this process, by FileDescriptorName. Source: sd_listen_fds(3)."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return {}
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    sockets = {}
    for offset in range(count):
        fd = _FIRST_FD + offset
        os.set_inheritable(fd, False)
        sockets[names[offset] if offset < len(names) else str(offset)] = socket.socket(fileno=fd)
    return sockets


def notify(state: str) -> None:
    """Send `state` to the service manager, if there is one. Source: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.send(state.encode())


async def watchdog() -> None:
    """Ping systemd's watchdog twice per interval while the event loop runs. Return at once if there is no watchdog."""
    interval_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    while interval_s:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s / 2)


def keep_memory_private() -> None:
    """Disable core dumps, ptrace and /proc/PID/mem access by the same user: this process holds a key."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
