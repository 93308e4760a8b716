"""The program inside a task's sandbox: starts the CLI and is its only connection to the meter.

systemd starts one instance per connection to task.sock, with its own user and its own network namespace. The connection
is this program's stdin and stdout. Standard library only, so that it starts fast and needs no venv.

The daemon sends one JSON line {"argv", "env", "stdin_bytes", "meter_socket"} followed by that many bytes, which become
the CLI's stdin. The program first answers {"type": "farmhand.unit", "unit"}, before anything of the task runs. Then it
sends the CLI's stdout lines unchanged and, last, {"type": "farmhand.exit", "rc", "signal", "oom", "stderr"}. The daemon
disconnects to end the task; then everything in the sandbox is killed. If the task has prevented that, systemd ends the
unit by its name.
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
from collections.abc import Iterator
from typing import Any, BinaryIO

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


def _lines(path: str) -> list[str]:
    with open(path, encoding="ascii") as file:
        return file.read().splitlines()


def oom_kills() -> int:
    """Return the number of processes in this cgroup that the kernel killed for lack of memory (cgroup v2 or v1).

    Inside the unit the counter is bound to a path of its own, and the cgroup tree is hidden.
    """
    for counter in _counters():
        with contextlib.suppress(OSError, ValueError):
            for row in _lines(counter):
                if row.startswith("oom_kill "):
                    return int(row.split()[1])
    return 0


def _counters() -> Iterator[str]:
    yield COUNTER
    with contextlib.suppress(OSError, ValueError):
        for line in _lines("/proc/self/cgroup"):
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                counters = [f"/sys/fs/cgroup{path}/memory.events", f"/sys/fs/cgroup/unified{path}/memory.events"]
            elif "memory" in controllers.split(","):
                counters = [f"/sys/fs/cgroup/memory{path}/memory.oom_control"]
            else:
                continue
            yield from counters


def _first_victim() -> None:
    """Make this child process the OOM killer's first choice, so that the sandbox survives to report it."""
    hide_memory(0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("900")


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


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


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101  (Popen was given a pipe)
    with contextlib.suppress(OSError):
        process.stdin.write(data)
        process.stdin.close()


def run(order: dict[str, Any], data: bytes, home: str, stdin_fd: int, out: BinaryIO) -> None:
    """Run the CLI in `home` as `order` says, with `data` on its stdin. Write its lines and the exit line to `out`."""
    port = start_relay(order["meter_socket"])
    env = order["env"] | {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}"}
    env |= dict.fromkeys(("HOME", "TMPDIR"), home)
    before = oom_kills()
    with tempfile.TemporaryFile(dir=home, buffering=0) as stderr:
        try:
            process = subprocess.Popen(
                order["argv"],
                env=env,
                cwd=home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=_first_victim,
            )
        except OSError as error:
            _write_line(out, {"type": "farmhand.exit", "rc": 127, "signal": 0, "oom": False, "stderr": str(error)})
            return
        for target, args in (
            (_hang_up_watch, (stdin_fd, process)),
            (_oom_watch, (process, before)),
            (_feed, (process, data)),
        ):
            threading.Thread(target=target, args=args, daemon=True).start()
        _forward(process, out)
        status = process.wait()
        _kill_group(process)
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _STDERR_TAIL))
        tail = stderr.read().decode("utf-8", "replace")
    rc, sig = (status, 0) if status >= 0 else (128 - status, -status)
    _write_line(out, {"type": "farmhand.exit", "rc": rc, "signal": sig, "oom": oom_kills() > before, "stderr": tail})


def _write_line(out: BinaryIO, value: dict[str, Any]) -> None:
    out.write(json.dumps(value).encode() + b"\n")
    out.flush()


def main() -> int:
    """Run one task. stdin and stdout are the connection to the daemon; the argument is the unit's name, if any."""
    hide_memory()
    stdin, out = sys.stdin.buffer, sys.stdout.buffer
    try:
        line = stdin.readline()
        if not line:  # a spare sandbox that is not needed
            raise EOFError
        order = json.loads(line)
        data = _read_exactly(stdin, order["stdin_bytes"])
        _write_line(out, {"type": "farmhand.unit", "unit": "".join(sys.argv[1:2])})
        # For this task alone; in the unit all of /tmp is removed with it.
        home = tempfile.mkdtemp(prefix="home-")
        try:
            run(order, data, home, stdin.fileno(), out)
        finally:
            shutil.rmtree(home, ignore_errors=True)
    except (EOFError, ConnectionError):
        # The daemon has disconnected: keep the interpreter from flushing stdout to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
