"""A supervisor that runs each shell in its own session and outlives everything that the shell leaves behind.

It runs as a program (`python -I -S -c SOURCE`) and forks for each connection that it receives over its stdin, a socket.
The fork is a subreaper (prctl(2)): a daemon or tmux server that the shell leaves behind becomes its child and is ended
with it. A connection has one line with a JSON object; when its other side closes, the client is gone, and everything is
ended. The answer is one JSON object, or the reason for its absence. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from typing import Any

#: The end of a shell that was not ready in time.
OUT_OF_TIME = "out of time"
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h
_PIECE = 1 << 16
#: Maximum bytes kept of an answer, of the output, and of one trace record.
_MOST_ANSWER = 4 << 20
_MOST_OUTPUT = 1 << 18
_MOST_RECORD = 1 << 16
#: Maximum number of trace records kept, so that an endless loop does not fill the memory.
_MOST_RECORDS = 20_000
#: Seconds that remaining processes have to end by themselves before they are killed.
_GRACE_S = 0.2
#: Seconds for which the pipes of an ended shell are read, since processes it left may keep them open.
_REST_S = 0.5
_END = b"\0\0end\n"


class TraceTail:
    """A stream of trace records that keeps those matching `keep`, and the last ones."""

    def __init__(self, start: str, keep: str) -> None:
        self.start = start.encode()
        self.keep = re.compile(keep.encode())
        self.rest = b""
        self.kept: list[bytes] = []
        self.last: deque[bytes] = deque(maxlen=20)
        self.depth = 0

    def feed(self, piece: bytes) -> None:
        """Process a piece of the stream."""
        *records, self.rest = (self.rest + piece).split(self.start)
        for record in records:
            self.take(record)
        if len(self.rest) > 2 * _MOST_RECORD:
            self.rest = self.rest[:_MOST_RECORD]

    def take(self, record: bytes) -> None:
        """Process one complete record."""
        if not record:
            self.depth += 1  # bash doubles the first character for each level of nesting
            return
        record = b"%d\x1f" % self.depth + record[:_MOST_RECORD]
        self.depth = 0
        if self.keep.search(record) and len(self.kept) < _MOST_RECORDS:
            self.kept.append(record)
        self.last.append(record)


def children() -> list[int]:
    """Return the processes whose parent is this one. Source: proc(5), /proc/pid/task/tid/children."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN, or no Linux
        return children_by_parent()


def children_by_parent() -> list[int]:
    """Return the same as `children`, found by looking at every process: it takes a hundred times longer."""
    found = []
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                    found.append(int(name))
    return found


def reap() -> bool:
    """Collect the exit statuses of ended children. Return whether any child is left."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
        except ChildProcessError:
            return False


def end_all(shell: int) -> None:
    """Kill the shell, then end all that it left: SIGTERM first, then SIGKILL. What loses its parent becomes ours."""
    with contextlib.suppress(OSError):
        os.kill(shell, signal.SIGKILL)
        time.sleep(0.001)  # usually it leaves no processes, so none have to be searched for
    for number, limit in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, 5.0)):
        until = time.monotonic() + limit
        while reap() and time.monotonic() < until:
            for pid in children():
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            with contextlib.suppress(OSError):
                os.killpg(shell, number)
            time.sleep(0.005)


def start(spec: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start the shell without a terminal or stdin, as the user who owns the files."""
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    return subprocess.Popen(
        spec["argv"],
        executable=spec["program"],
        env=spec["env"],
        cwd=next(filter(os.path.isdir, spec["cwd"])),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[spec["trace_fd"]],
        start_new_session=True,
        umask=0o022,
        **spec["user"],
    )


def watch(spec: dict[str, Any]) -> dict[str, Any]:
    """Run the shell until the answer is complete, it has ended, or the time is up."""
    answers = os.open(spec["answers"], os.O_RDWR | os.O_NONBLOCK)
    trace_r, trace_w = os.pipe()
    os.dup2(trace_w, spec["trace_fd"])
    begun = time.monotonic()
    try:
        shell = start(spec)
    except OSError:
        return {"ended": "exit 127", "answer": "", "said": "", "kept": [], "last": []}
    os.close(trace_w)
    os.close(spec["trace_fd"])
    assert shell.stdout is not None and shell.stderr is not None  # noqa: S101, PT018 - they are pipes
    out_r, err_r = shell.stdout.fileno(), shell.stderr.fileno()
    # An old bash has no separate descriptor for the trace: then it is on stderr, as for the other shells.
    tails = {fd: TraceTail(spec["record"], spec["keep"]) for fd in (trace_r, err_r)}
    answer = said = b""
    ended = OUT_OF_TIME
    reading = {out_r, err_r, trace_r, answers}
    closed_at = None
    while (left := begun + spec["limit_s"] - time.monotonic()) > 0:
        ready, _, _ = select.select([*reading, 0], [], [], 0 if ended == "answered" else min(left, 0.05))
        if 0 in ready and not os.read(0, _PIECE):
            ended = "abandoned"
            break
        for fd in reading.intersection(ready):
            piece = b""
            with contextlib.suppress(BlockingIOError):
                piece = os.read(fd, _PIECE)
            if fd == answers:
                answer = (answer + piece)[-_MOST_ANSWER:]
            elif not piece:
                reading.discard(fd)
            elif fd in tails:
                tails[fd].feed(piece)
            else:
                said = (said + piece)[-_MOST_OUTPUT:]
        if ended == "answered":  # everything written before the end of the answer has now been read
            break
        if answer.endswith(_END) or (_END in answer and b"\0\0unanswered" in answer):
            ended = "answered"
        elif closed_at is None:
            if (code := shell.poll()) is not None:
                closed_at = time.monotonic()
                ended = f"signal {-code}" if code < 0 else f"exit {code}"
        elif not ready or time.monotonic() > closed_at + _REST_S:
            break
    end_all(shell.pid)
    for tail in tails.values():
        tail.take(tail.rest)
    tail = tails[trace_r] if tails[trace_r].last else tails[err_r]
    return {
        "ended": ended,
        "answer": _text(answer),
        "said": _text(said),
        "kept": [_text(record) for record in tail.kept],
        "last": [_text(record) for record in tail.last],
    }


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def main() -> None:
    """Answer each connection in its own process, until no more can arrive."""
    control = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while connections := socket.recv_fds(control, 1, 1)[1]:
        try:
            forked = os.fork()
        except OSError as error:
            os.write(connections[0], str(error).encode())
            forked = -1
        if forked == 0:
            control.close()
            for fd in (0, 1, 2):
                os.dup2(connections[0], fd)
            if sys.platform == "linux":
                with contextlib.suppress(OSError, AttributeError):
                    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
            os.close(connections[0])
            sys.stdout.write(json.dumps(watch(json.loads(sys.stdin.readline()))))
            return
        os.close(connections[0])


if __name__ == "__main__":
    main()
