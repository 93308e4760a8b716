"""The first program of the worker container: one confined sandbox per connection to task.sock.

It stands where systemd's `jada-task@.service` stands on a farm host. Each sandbox has its own user and directory. Its
connection stays open until every process of that user has been killed and its files are gone, so the daemon knows
when it has ended. Standard library only, except for the wall's filter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

from farmhand.cloud.confine import confine

#: The users of this worker's sandboxes. The kernel counts a user's processes over all containers of a machine, so each
#: worker has users of its own. The second numbers are for an engine that gives its containers 65536 users only.
WANTED_UID, UIDS = int(os.environ.get("FARMHAND_FIRST_UID", "20000")), 1000
FEW_UIDS = range(2000, 62_000, UIDS)
MAPS = ("uid_map", "gid_map")
#: Seconds to wait for the meter's socket after the start: the containers start at the same moment.
READY_S = 60.0
NOT_READY = 70
#: Seconds between two looks at the agent, and after how many without it the launcher ends: a container that nothing
#: ends would be paid for.
LOOK_S, GONE_S = 5.0, 60.0
#: Seconds that a sandbox has to end by itself after the daemon has disconnected.
LEAVE_S = 5.0
#: Seconds until what found no process or descriptor left is tried again.
AGAIN_S = 0.1
#: Where a task can leave files, beside its own directory.
SHARED = ("/tmp", "/dev/shm")  # noqa: S108  (they are searched for a user's files)
_OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
#: What tasks may open: see confine.
WALL = os.environ.get("FARMHAND_WALL", "unix")
#: A copy outside the package: it starts without it.
SANDBOX = "/opt/farmhand/share/sandbox.py"


class Launcher:
    """Accepts connections on `path` from user `agent` and gives each a sandbox below `work`. `meter` is the agent's."""

    def __init__(self, path: Path, work: Path, agent: int, meter: Path) -> None:
        self._meter = meter
        self._seen = self._looked = time.monotonic()
        self._work = work
        self._agent = agent
        self._uids: dict[int, int] = {}
        self._first_uid, self._next = first_uid(WANTED_UID, *(Path("/proc/self", name).read_text() for name in MAPS)), 0
        self._stopping = False
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        os.chown(path, agent, agent)
        path.chmod(0o600)
        self._listener.listen(64)

    def run(self) -> None:
        """Serve until SIGTERM, or until the agent has gone; then wait for the sandboxes that are left."""
        wake, waker = socket.socketpair()
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        while not self._stopping or self._uids:
            ready, _, _ = select.select([wake] if self._stopping else [wake, self._listener], [], [], LOOK_S)
            if wake in ready:
                wake.recv(4096)
            self._reap()
            self._look()
            if self._listener in ready and not self._stopping:
                self._accept()

    def _look(self) -> None:
        """Stop if no agent has been there for long."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        if answers(self._meter):
            self._seen = now
        elif now - self._seen > GONE_S and not self._stopping:
            sys.stderr.write(f"launcher: the agent has not been there for {GONE_S:g} s\n")
            self._stopping = True

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)[0]) > 0:
                self._uids.pop(ended, None)

    def _accept(self) -> None:
        try:
            line, _ = self._listener.accept()
        except OSError:  # out of descriptors or memory, which passes
            time.sleep(AGAIN_S)
            return
        with line:
            if _peer_uid(line) != self._agent:
                return
            uid = self._free_uid()
            try:
                pid = os.fork()
            except OSError as error:  # tasks have taken all processes; the agent sees a sandbox that ended at once
                sys.stderr.write(f"launcher: no sandbox: {error.strerror}\n")
                return
            if pid == 0:
                self._listener.close()
                os._exit(_guarded(line, uid, self._work / str(uid)))
            self._uids[pid] = uid

    def _free_uid(self) -> int:
        """Return a user that no sandbox has; one that has ended is used again as late as possible."""
        used = set(self._uids.values())
        while True:
            uid = self._first_uid + self._next % UIDS
            self._next += 1
            if uid not in used:
                return uid


def first_uid(wanted: int, *maps: str) -> int:
    """Return the first of UIDS users that exist here, by the maps of users and groups: `wanted` if it does.

    Where the engine runs without root, or with userns-remap, a container has 65536 users. Raise OSError if none of
    FEW_UIDS exist. Source: user_namespaces(7).
    """
    ranges = [[[int(word) for word in row.split()] for row in text.splitlines()] for text in maps]

    def exists(first: int) -> bool:
        return all(
            any(inside <= first and first + UIDS <= inside + size for inside, _, size in rows) for rows in ranges
        )

    few = [first for first in FEW_UIDS if exists(first)]
    if exists(wanted):
        return wanted
    if not few:
        raise OSError(errno.EINVAL, "this container has too few users for its sandboxes")
    return few[wanted // UIDS % len(few)]


def _peer_uid(line: socket.socket) -> int:
    return int.from_bytes(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder)


def _guarded(line: socket.socket, uid: int, home: Path) -> int:
    """Run one sandbox to its end and remove what it leaves. Return the exit status of this process."""
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
    try:
        home.mkdir(0o700)
        os.chown(home, uid, uid)
        pid = os.fork()
        if pid == 0:
            _become_sandbox(line, uid, home)
        _wait(line, pid)
        return 0
    finally:
        end_user(uid)
        shutil.rmtree(home, ignore_errors=True)
        for shared in SHARED:
            _remove_files(shared, uid)


def _become_sandbox(line: socket.socket, uid: int, home: Path) -> None:
    """Replace this process by the sandbox program, with the connection as stdin and stdout; never return."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        os.umask(0o077)
        os.dup2(line.fileno(), 0)
        os.dup2(line.fileno(), 1)
        os.closerange(3, 1024)
        os.chdir(home)
        confine(uid, WALL)
        environ = {"PATH": "/usr/bin:/bin", "TMPDIR": str(home), "LANG": "C.UTF-8"}
        os.execve("/usr/bin/python3", ["python3", "-I", "-S", SANDBOX, "", WALL, _oom_counter()], environ)  # noqa: S606
    except BaseException as error:
        os.write(2, f"launcher: no sandbox: {error}\n".encode())
    finally:
        os._exit(1)


def _oom_counter() -> str:
    """Return the file in which the kernel counts this container's memory kills (cgroup v2 or v1)."""
    found = [name for name in _OOM_COUNTERS if os.path.exists(name)]
    return found[0] if found else ""


def _wait(line: socket.socket, pid: int) -> None:
    """Wait until the sandbox program has ended, or has had its time after the daemon has disconnected."""
    child = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(child, select.POLLIN)
    poll.register(line.fileno(), select.POLLRDHUP)
    ready = dict(poll.poll())
    if child not in ready:
        poll.unregister(line.fileno())
        poll.poll(LEAVE_S * 1000)
    os.close(child)


def end_user(uid: int) -> None:
    """Kill every process of `uid` and wait until none is left.

    kill(-1) by a process of that user reaches them all at once; a fork bomb cannot escape it.
    """
    while _processes(uid):
        try:
            pid = os.fork()
        except OSError:  # no process is left for it; others end meanwhile
            time.sleep(AGAIN_S)
            continue
        if pid == 0:
            with contextlib.suppress(OSError):
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                os.kill(-1, signal.SIGKILL)
            os._exit(0)
        os.waitpid(pid, 0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0] > 0:
                pass
        time.sleep(0.01)


def _processes(uid: int) -> list[int]:
    """Return the running processes of `uid`; zombies are the init process's to reap."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, KeyError):
                # Not the owner of the directory: that is root for a process that hides its memory.
                rows = dict(row.split(":", 1) for row in Path(entry.path, "status").read_text().splitlines())
                if str(uid) in rows["Uid"].split() and rows["State"].split()[0] not in "ZX":
                    found.append(int(entry.name))
    return found


def _remove_files(directory: str, uid: int) -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == uid:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        os.unlink(entry.path)


def answers(meter: Path) -> bool:
    """Return whether something listens on the socket."""
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(meter))
        except OSError:
            return False
    return True


def main(run: Path, sandbox: Path, work: Path, agent: int) -> int:
    """Wait for the meter, then serve. Return 0 after SIGTERM, NOT_READY if there is no meter."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    until = time.monotonic() + READY_S
    # The file alone may be that of an agent before this one.
    while not answers(run / "meter.sock"):
        if time.monotonic() > until:
            sys.stderr.write(f"launcher: the agent has made no {run}/meter.sock within {READY_S:g} s\n")
            return NOT_READY
        time.sleep(0.05)
    for shared in SHARED:
        # Files can be made there, but no task sees the names of another's.
        os.chmod(shared, 0o1733)  # noqa: S103
    Launcher(sandbox / "task.sock", work, agent, run / "meter.sock").run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path("/run/farmhand"), Path("/run/sandbox"), Path("/work"), 900))
