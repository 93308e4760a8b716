"""The program inside a task's sandbox: starts the CLI and is its only connection to the meter.

systemd starts one instance per connection to task.sock, with its own user and its own network namespace. The connection
is this program's stdin and stdout. Standard library only, so that it starts fast and needs no venv.

The daemon sends one JSON line {"argv", "env", "stdin_bytes", "meter_socket"} followed by that many bytes, which become
the CLI's stdin. The program first answers {"type": "farmhand.unit", "unit"}, before anything of the task runs. Then it
sends the CLI's stdout lines unchanged and, last, {"type": "farmhand.exit", "rc", "signal", "oom", "stderr"}. The daemon
disconnects to end the task; then everything in the sandbox is killed. If the task has prevented that, systemd ends the
unit by its name. The order of a repository task has its time limit too, so that its changes so far come back.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, BinaryIO

#: The unit binds its own memory.events (cgroup v2) or memory.oom_control (v1) here, and hides the cgroup tree.
COUNTER = "/run/oom"
_STDERR_TAIL = 2000
_OOM_POLL_S = 0.2
#: Maximum data in the CLI's stdout after it has ended: the largest pipe that an unprivileged process can have.
_PIPE_BYTES = 1 << 20
#: Time limit in seconds for an orderly end after the daemon has disconnected.
_LEAVE_S = 2.0


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _join(client: socket.socket, meter_socket: str) -> None:
    """Copy data between one connection and the meter, both ways."""
    with client, socket.socket(socket.AF_UNIX) as meter:
        try:
            meter.connect(meter_socket)
        except OSError:
            return
        back = threading.Thread(target=_pump, args=(meter, client), daemon=True)
        back.start()
        _pump(client, meter)
        back.join()


def start_relay(meter_socket: str) -> int:
    """Listen on 127.0.0.1 and connect each client to the meter's socket. Return the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_join, args=(client, meter_socket), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    bound: int = listener.getsockname()[1]
    return bound


def hide_memory(hidden: int = 1) -> None:
    """Keep this user's other processes, hence the task, from accessing this one's memory. Source: prctl(2)."""
    import ctypes  # imported here only: it takes a third of this program's start-up time

    ctypes.CDLL(None).prctl(4, 1 - hidden, 0, 0, 0)  # PR_SET_DUMPABLE


def oom_kills(counter: str = COUNTER) -> int:
    """Return the number of processes that the kernel killed for lack of memory: in this unit, or in the container."""
    with contextlib.suppress(OSError, ValueError), open(counter, encoding="ascii") as file:
        for row in file:
            if row.startswith("oom_kill "):
                return int(row.split()[1])
    return 0


def _first_victim() -> None:
    """Make this child process the OOM killer's first choice, so that the sandbox survives to report it."""
    hide_memory(0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("900")


def _hang_up_watch(stdin_fd: int, process: subprocess.Popen[bytes]) -> None:
    """Kill the CLI and its process group when the daemon disconnects.

    Processes that left the CLI's group could block this program, and with it the unit. So it exits in any case, and
    systemd then kills whatever is left.
    """
    poll = select.poll()
    poll.register(stdin_fd, select.POLLIN | select.POLLRDHUP)
    poll.poll()
    _kill_group(process)
    threading.Event().wait(_LEAVE_S)
    os._exit(1)


def _forward(process: subprocess.Popen[bytes], out: BinaryIO) -> None:
    """Copy the CLI's stdout to `out` until it or the CLI ends: processes left behind may keep the pipe open."""
    assert process.stdout is not None  # noqa: S101  (Popen was given a pipe)
    source = process.stdout.fileno()
    poll = select.poll()
    poll.register(source, select.POLLIN)
    left, last = _PIPE_BYTES, b"\n"
    while left > 0:
        ended = process.poll() is not None
        if poll.poll(0 if ended else 500):
            data = os.read(source, 65536)
            if not data:
                break
            out.write(data)
            out.flush()
            last = data[-1:]
            left -= len(data) if ended else 0
        elif ended:
            break
    if last != b"\n":
        out.write(b"\n")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _oom_watch(process: subprocess.Popen[bytes], before: int) -> None:
    """Kill the task when it has hit its memory limit, whichever of its processes the kernel chose."""
    done = threading.Event()
    while process.poll() is None:
        if oom_kills() > before:
            _kill_group(process)
            return
        done.wait(_OOM_POLL_S)


def _time_watch(process: subprocess.Popen[bytes], until: float, late: threading.Event) -> None:
    """Kill the CLI and its process group at the task's time limit, and say so by `late`."""
    try:
        process.wait(until - time.monotonic())
    except subprocess.TimeoutExpired:
        late.set()
        _kill_group(process)


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101  (Popen was given a pipe)
    with contextlib.suppress(OSError):
        process.stdin.write(data)
        process.stdin.close()


def _way_to(meter_socket: str, wall: str) -> dict[str, str]:
    """Return the CLI's variables for the meter. Behind the wall "unix" the CLI connects to the socket itself.

    That variable is undocumented; measured with 2.1.330 and 2.1.332, and watched by a test of its own.
    """
    if wall == "unix":
        return {"ANTHROPIC_BASE_URL": "http://127.0.0.1", "ANTHROPIC_UNIX_SOCKET": meter_socket}
    return {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{start_relay(meter_socket)}"}


def run(
    order: dict[str, Any],
    data: bytes,
    home: str,
    stdin_fd: int,
    out: BinaryIO,
    *,
    wall: str = "",
    counter: str = COUNTER,
) -> None:
    """Run the CLI in `home` as `order` says, with `data` on its stdin. Write its lines and the exit line to `out`.

    In a container, whose `wall` is named, the `counter` of memory kills is that of all its tasks: then only a CLI that
    was itself killed has met the limit.
    """
    until = time.monotonic() + order.get("limit_s", threading.TIMEOUT_MAX)
    env = order["env"] | _way_to(order["meter_socket"], wall)
    env |= dict.fromkeys(("HOME", "TMPDIR"), home)
    start = home
    if repo := order.get("repo"):
        # A copy beside this file, where tasks work on repositories.
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        worktree: Any = __import__("worktree")

        try:
            start = worktree.unpack(home, repo, sys.stdin.buffer)
            seen = worktree.look(home)
        except (worktree.Unusable, OSError) as error:
            _write_line(out, {"type": "farmhand.exit", "rc": 70, "stderr": str(error), "stage": "unpack"})
            return
    before = oom_kills(counter)
    with tempfile.TemporaryFile(dir=home, buffering=0) as stderr:
        try:
            process = subprocess.Popen(
                order["argv"],
                env=env,
                cwd=start,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=_first_victim,
            )
        except OSError as error:
            _write_line(out, {"type": "farmhand.exit", "rc": 127, "signal": 0, "oom": False, "stderr": str(error)})
            return
        watches: list[tuple[Any, tuple[Any, ...]]] = [(_hang_up_watch, (stdin_fd, process)), (_feed, (process, data))]
        watches += [] if wall else [(_oom_watch, (process, before))]
        late = threading.Event()
        watches += [(_time_watch, (process, until, late))] if "limit_s" in order else []
        for target, args in watches:
            threading.Thread(target=target, args=args, daemon=True).start()
        _forward(process, out)
        status = process.wait()
        _kill_group(process)
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _STDERR_TAIL))
        tail = stderr.read().decode("utf-8", "replace")
    if repo:
        try:
            worktree.collect(home, repo, seen, lambda line: _write_line(out, line))
        except (worktree.Unusable, OSError) as error:
            failed = {"rc": 70, "stderr": str(error), "stage": "collect", "timed_out": late.is_set()}
            _write_line(out, {"type": "farmhand.exit"} | failed)
            return
    rc, sig = (status, 0) if status >= 0 else (128 - status, -status)
    oom = oom_kills(counter) > before and (not wall or sig == signal.SIGKILL)
    ended = {"rc": rc, "signal": sig, "oom": oom, "stderr": tail, "timed_out": late.is_set()}
    _write_line(out, {"type": "farmhand.exit"} | ended)


def _write_line(out: BinaryIO, value: dict[str, Any]) -> None:
    out.write(json.dumps(value).encode() + b"\n")
    out.flush()


def main() -> int:
    """Run one task. stdin and stdout are the connection to the daemon.

    The argument is the unit's name, if any. In a container there are three: "", the wall, and the counter of memory
    kills.
    """
    hide_memory()
    unit, wall, counter = [*sys.argv[1:4], "", "", ""][:3]
    stdin, out = sys.stdin.buffer, sys.stdout.buffer
    try:
        line = stdin.readline()
        if not line:  # a spare sandbox that is not needed
            raise EOFError
        order = json.loads(line)
        data = stdin.read(order["stdin_bytes"])
        if len(data) != order["stdin_bytes"]:
            raise EOFError
        _write_line(out, {"type": "farmhand.unit", "unit": unit})
        # For this task alone; in the unit all of /tmp is removed with it.
        # A directory that was named is not given up for another one when it is full.
        home = tempfile.mkdtemp(prefix="home-", dir=os.environ.get("TMPDIR"))
        try:
            run(order, data, home, stdin.fileno(), out, wall=wall, counter=counter or COUNTER)
        finally:
            shutil.rmtree(home, ignore_errors=True)
    except (EOFError, ConnectionError):
        # The daemon has disconnected: keep the interpreter from flushing stdout to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
