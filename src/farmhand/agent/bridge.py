"""`jada-agent bridge`: connects stdin and stdout to the daemon's socket. Standard library only, to start fast.

Every call over ssh waits for this program to start. So the role also copies this file out of the venv and runs it with
`python3 -I -S`, which starts in a quarter of the time of the venv's command.

When stdin ends, the daemon's answer may still be in transit. The bridge therefore runs until the daemon closes the
connection, stdout has no reader any more, or no data has arrived for `linger_s`. A pending answer is never silent that
long, since events are at most 10 s apart. The bridge does not pass on a half-close: an HTTP server would treat it as
the end of the connection.
"""

from __future__ import annotations

import _socket  # the socket module adds enum names and selectors, which take half of the start-up time
import os
import select
import sys

#: The daemon's socket, and how long to wait for a silent daemon after stdin has ended, in seconds.
SOCKET = "/run/jada-agent/agent.sock"
LINGER_S = 30.0


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def bridge(path: str, linger_s: float, stdin_fd: int = 0, stdout_fd: int = 1) -> int:
    """Copy bytes both ways until one side closes. Return 0, or 4 after one line on stderr if there is no daemon."""
    agent = _socket.socket(_socket.AF_UNIX)
    try:
        agent.connect(path)
    except OSError as error:
        hint = (
            "the user must be in the group farmhand" if isinstance(error, PermissionError) else "is jada-agent running?"
        )
        print(f"jada-agent: {path}: {error.strerror} ({hint})", file=sys.stderr)  # noqa: T201  (a command's own stderr)
        return 4
    poll = select.poll()
    poll.register(stdin_fd, select.POLLIN)
    poll.register(agent.fileno(), select.POLLIN)
    poll.register(stdout_fd, 0)  # POLLERR and POLLHUP are always reported: the reader has gone
    patience_ms: int | None = None
    try:
        while ready := poll.poll(patience_ms):
            for fd, event in ready:
                if fd == stdout_fd:
                    return 0
                data = os.read(fd, 65536) if event & (select.POLLIN | select.POLLHUP) else b""
                if fd == stdin_fd:
                    if data:
                        agent.sendall(data)
                    else:
                        poll.unregister(stdin_fd)
                        patience_ms = int(linger_s * 1000)
                elif data:
                    _write_all(stdout_fd, data)
                else:
                    return 0
    except OSError:
        pass
    finally:
        agent.close()
    return 0


if __name__ == "__main__":
    sys.exit(bridge(sys.argv[1] if sys.argv[1:] else SOCKET, LINGER_S))
