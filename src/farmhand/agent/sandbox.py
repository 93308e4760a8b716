"""The program inside a task's sandbox: starts the CLI, and is its only way to the meter.

systemd starts one instance per connection to task.sock, as a user of its own in a network namespace of its own. The
connection is this program's stdin and stdout. Standard library only, so that it starts fast and needs no venv.

The daemon sends one JSON line {"argv", "env", "stdin_bytes", "meter_socket"} and then that many bytes, which become the
CLI's stdin. Back goes first {"type": "farmhand.unit", "unit"}, before anything of the task runs, then the CLI's stdout
lines as they are and, last, {"type": "farmhand.exit", "rc", "signal", "oom", "stderr"}. The daemon hangs up to end the
task; then everything in here is killed. What the task has kept from doing so, systemd ends by the unit's name.
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
#: What may still be in the CLI's stdout once it has ended: the largest pipe that an unprivileged process can have.
_PIPE_BYTES = 1 << 20
#: How long an orderly end may take once the daemon has hung up.
_LEAVE_S = 2.0


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _join(client: socket.socket, meter_socket: str) -> None:
    """Carry one connection to the meter and back."""
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
    """Listen on 127.0.0.1 and join each connection to the meter's socket. Returns the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_join, args=(client, meter_socket), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    bound: int = listener.getsockname()[1]
    return bound


def hide_memory(hidden: int = 1) -> None:
    """No other process of this user, so none of the task, reads or writes this one's memory. Source: prctl(2)."""
    import ctypes  # only here: it takes a third of the time that this program needs to start

    ctypes.CDLL(None).prctl(4, 1 - hidden, 0, 0, 0)  # PR_SET_DUMPABLE


def _lines(path: str) -> list[str]:
    with open(path, encoding="ascii") as file:
        return file.read().splitlines()


def oom_kills() -> int:
    """The number of processes that the kernel has killed in this cgroup for want of memory (cgroup v2 or v1).

    In its unit the counter is bound to a place of its own, and the tree of all cgroups is hidden.
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
    """In the child: be what the kernel kills first, so that the sandbox lives to report it."""
    hide_memory(0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("900")


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _hang_up_watch(stdin_fd: int, process: subprocess.Popen[bytes]) -> None:
    """Kill the CLI and all it started when the daemon hangs up.

    What has left the CLI's process group could hold this program up, and with it the unit: it ends in any case, and
    systemd then kills whatever is left.
    """
    poll = select.poll()
    poll.register(stdin_fd, select.POLLIN | select.POLLRDHUP)
    poll.poll()
    _kill_group(process)
    threading.Event().wait(_LEAVE_S)
    os._exit(1)


def _forward(process: subprocess.Popen[bytes], out: BinaryIO) -> None:
    """The CLI's stdout to `out`, until it ends or the CLI does: what it left behind may hold the pipe open."""
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
    """A task that has met its memory limit ends, whichever of its processes the kernel chose."""
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
    """Run the CLI in `home` as `order` says with `data` on its stdin; write its lines and the closing line to `out`."""
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
    """One task: stdin and stdout are the connection to the daemon; the argument is the unit's name, if it has one."""
    hide_memory()
    stdin, out = sys.stdin.buffer, sys.stdout.buffer
    try:
        line = stdin.readline()
        if not line:  # one that was started ahead, and is not needed
            raise EOFError
        order = json.loads(line)
        data = _read_exactly(stdin, order["stdin_bytes"])
        _write_line(out, {"type": "farmhand.unit", "unit": "".join(sys.argv[1:2])})
        # For this task alone; in its unit all of /tmp goes with it.
        home = tempfile.mkdtemp(prefix="home-")
        try:
            run(order, data, home, stdin.fileno(), out)
        finally:
            shutil.rmtree(home, ignore_errors=True)
    except (EOFError, ConnectionError):
        # The daemon has hung up: the interpreter must not try to tell it more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
