"""A supervisor that runs each shell in its own session and outlives everything that the shell leaves behind.

It runs as a program (`python -I -S -c SOURCE`). Its stdin is a socket over which it receives connections, and it forks
a process for each. That process is a subreaper (prctl(2)): a daemon or tmux server that the shell leaves behind becomes
its child and is ended with it. It reads one JSON object, terminated by a line feed. When the other side closes its end,
the client is gone, and everything is ended. It answers with one JSON object, or with the reason for its absence.
Standard library only; nothing is imported after a shell has started.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import re
import select
import signal
import socket
import sys
import time
from collections import deque
from typing import Any

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h
_PIECE = 1 << 16
#: Maximum bytes kept of an answer, of the output after the mark, and of one trace record.
_MOST_ANSWER = 4 << 20
_MOST_OUTPUT = 1 << 18
_MOST_RECORD = 1 << 16
#: Maximum number of trace records kept, so that an endless loop does not fill the memory.
_MOST_RECORDS = 20_000
#: Seconds that remaining processes have to end by themselves before they are killed.
_GRACE_S = 0.2
_END = b"\0\0end\n"
#: The end of a shell that was not ready in time.
OUT_OF_TIME = "out of time"


class TraceTail:
    """A stream of trace records that keeps those matching `keep`, and the last ones."""

    def __init__(self, start: bytes, keep: str) -> None:
        self.start = start
        self.keep = re.compile(keep.encode())
        self.rest = b""
        self.kept: list[bytes] = []
        self.last: deque[bytes] = deque(maxlen=20)
        self.number = 0
        self.depth = 0

    def feed(self, piece: bytes) -> None:
        """Process a piece of the stream."""
        self.rest += piece
        *records, self.rest = self.rest.split(self.start)
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
        self.number += 1

    def end(self) -> None:
        """Process the end of the stream."""
        self.take(self.rest)
        self.rest = b""


def children() -> dict[int, list[int]]:
    """Return the child processes of every process, by its id."""
    found: dict[int, list[int]] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
                found.setdefault(parent, []).append(int(name))
    return found


def descendants(pid: int) -> list[int]:
    """Return all direct and indirect child processes of `pid`."""
    tree = children()
    found: list[int] = []
    todo = [pid]
    while todo:
        new = tree.get(todo.pop(), [])
        found += new
        todo += new
    return found


def reap() -> bool:
    """Collect the exit statuses of ended children. Return whether any child is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def end_all(shell: int) -> None:
    """Kill the shell, then end all processes it left: SIGTERM first, then SIGKILL."""
    with contextlib.suppress(OSError):
        os.kill(shell, signal.SIGKILL)
        time.sleep(0.001)  # usually it leaves no processes, so none have to be searched for
    for number, limit in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, 5.0)):
        until = time.monotonic() + limit
        while reap() and time.monotonic() < until:
            for pid in descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            with contextlib.suppress(OSError):
                os.killpg(shell, number)
            time.sleep(0.005)


def start(spec: dict[str, Any], out: int, err: int, traced: int) -> int:
    """Start the shell in its own session, without a terminal or stdin, as the user who owns the files."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((null, 0), (out, 1), (err, 2)):
            os.dup2(old, new)
        if spec["trace_fd"] > 2:
            os.dup2(traced, spec["trace_fd"])
        for signum in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        user = spec["user"]
        if user is not None:
            os.setgroups(user["groups"])
            os.setresgid(user["gid"], user["gid"], user["gid"])
            os.setresuid(user["uid"], user["uid"], user["uid"])
        os.umask(spec["umask"])
        for directory in spec["cwd"]:
            with contextlib.suppress(OSError):
                os.chdir(directory)
                break
        os.execve(spec["program"], spec["argv"], spec["env"])  # noqa: S606 - a shell is what is started
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, f"cannot be started: {error}".encode())
    finally:
        os._exit(127)


def watch(spec: dict[str, Any]) -> dict[str, Any]:
    """Run the shell until the answer is complete, it has ended, or the time is up."""
    answers = os.open(spec["answers"], os.O_RDWR | os.O_NONBLOCK)
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    trace_r, trace_w = os.pipe()
    begun = time.monotonic()
    shell = start(spec, out_w, err_w, trace_w)
    for fd in (out_w, err_w, trace_w):
        os.close(fd)
    # An old bash has no separate descriptor for the trace: then it is on stderr, as for the other shells.
    trace, other = (TraceTail(spec["record"].encode(), spec["keep"]) for _ in range(2))
    said = b""
    answer = b""
    mark = spec["mark"].encode()
    marked = not mark
    ended = OUT_OF_TIME
    reading = {out_r, err_r, trace_r, answers}
    closed_at = None
    while True:
        left = begun + spec["limit_s"] - time.monotonic()
        if left <= 0:
            break
        ready, _, _ = select.select([*reading, 0], [], [], 0 if ended == "answered" else min(left, 0.05))
        if 0 in ready and not os.read(0, _PIECE):
            ended = "abandoned"
            break
        for fd in ready:
            if fd == 0:
                continue
            try:
                piece = os.read(fd, _PIECE)
            except BlockingIOError:
                continue
            if not piece:
                reading.discard(fd)
            elif fd == answers:
                answer = (answer + piece)[-_MOST_ANSWER:]
            elif fd == out_r:
                said += piece
                if not marked and mark in said:  # the output of start-up files is not needed
                    marked, said = True, said.partition(mark)[2]
                said = said[:_MOST_OUTPUT] if marked else said[-len(mark) :]
            elif fd == err_r:
                other.feed(piece)
            else:
                trace.feed(piece)
        if ended == "answered":  # everything written before the end of the answer has now been read
            break
        if answer.endswith(_END) or (_END in answer and b"\0\0unanswered" in answer):
            ended = "answered"
            continue
        if closed_at is None:
            pid, status = (0, 0)
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(shell, os.WNOHANG)
            if pid == shell:
                closed_at = time.monotonic()
                code = os.waitstatus_to_exitcode(status)
                ended = f"signal {-code}" if code < 0 else f"exit {code}"
        elif not ready or time.monotonic() > closed_at + 0.5:
            # The shell has ended; processes it left may keep the pipes open indefinitely.
            break
    end_all(shell)
    for each in (trace, other):
        each.end()
    trace = trace if trace.number else other
    return {
        "ended": ended,
        "answer": _encoded(answer),
        "said": _encoded(said if marked else b""),
        "kept": [_encoded(record) for record in trace.kept],
        "last": [_encoded(record) for record in trace.last],
    }


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def answer_one() -> None:
    """Read a request from stdin, run it and write the answer to stdout."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    asked = b""
    while not asked.endswith(b"\n"):
        piece = os.read(0, _PIECE)
        if not piece:
            return
        asked += piece
    said = watch(json.loads(asked))
    sys.stdout.write(json.dumps(said))
    sys.stdout.flush()


def main() -> None:
    """Answer each connection in its own process, until no more can arrive."""
    control = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection = next(iter(socket.recv_fds(control, 1, 1)[1]), None)
        if connection is None:
            return
        try:
            forked = os.fork()
        except OSError as error:
            os.write(connection, str(error).encode())
            forked = -1
        if forked == 0:
            control.close()
            for fd in (0, 1, 2):
                os.dup2(connection, fd)
        os.close(connection)
        if forked == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer_one()
            return


if __name__ == "__main__":
    main()
