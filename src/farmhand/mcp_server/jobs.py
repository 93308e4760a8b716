"""The children that run a session's tasks and batches, and their files in the state directory.

    ~/.local/state/farmhand/mcp/              (XDG_STATE_HOME), 0700
        book.sqlite                           see farmhand.mcp_server.book
        jobs/ID/                              one job
            task.json | in.jsonl              what was asked
            lock                              held by the child as long as it runs, whoever started it
            pid, status                       its process, and its exit status
            end.json, log, progress           its stdout and stderr, and what it waits for
            out.jsonl, answer.txt             a batch's results; an answer too long for the session

All files are 0600. A child has a session of its own: it ends neither with the tool call nor with the server. The same
call starts it again where it was cut off, and nothing runs twice, since the ids stay.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from farmhand.batch.journal import LEASED
from farmhand.core.errors import FarmhandError
from farmhand.core.files import held_by_another, xdg
from farmhand.core.money import pico_of

#: How a child of ours is started; `farmhand.cli.mcp_job` notes its exit status.
_PROGRAM = (sys.executable, "-m", "farmhand.cli.mcp_job")
_MOST_BYTES = 64 * 1024 * 1024


def state_directory() -> Path:
    """Return the directory of all MCP servers, made if it is not there. Raise FarmhandError."""
    path = Path(xdg("XDG_STATE_HOME"), "farmhand", "mcp")
    try:
        (path / "jobs").mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise FarmhandError(f"{path}: {error.strerror}", hint="farmhand mcp keeps its jobs there") from None
    return path


def working_directory() -> str | None:
    """Return where a child is started: where the server was, None; if that is gone, a directory that is everywhere."""
    try:
        os.getcwd()
    except OSError:
        return "/"
    return None


def cost_of(value: Any) -> int | None:
    """Return a cost in US$ of a result in pico-dollars; None if it is not known."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return pico_of(value)


class JournalHeld(FarmhandError):
    """Another process holds a batch's journal: what its tasks have cost is not known yet."""

    code = "journal_held"


class Job:
    """One job's files and child. It may have been started by a server that is long gone."""

    def __init__(self, directory: Path, job_id: str) -> None:
        self.id = job_id
        self.path = directory / "jobs" / job_id

    def make(self, name: str, content: bytes) -> Path:
        """Make the job's directory with its input, the file `name`. Raise FarmhandError."""
        try:
            self.path.mkdir(mode=0o700)
            return self.write(name, content)
        except OSError as error:
            raise FarmhandError(f"{self.path}: {error.strerror}", hint="nothing was sent") from None

    def write(self, name: str, content: bytes) -> Path:
        """Write one of its files, for the operator alone. Raise OSError."""
        target = self.path / name
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(target, flags, 0o600), "wb") as file:
            file.write(content)
        return target

    def start(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        """Start its child, unless it runs. The child holds the lock as long as it lives."""
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _locked(lock):
                return
            for name in ("status", "end.json", "progress"):
                (self.path / name).unlink(missing_ok=True)
            with open(self.write("end.json", b""), "ab") as out, open(self.path / "log", "ab") as log:
                child = subprocess.Popen(
                    [*_PROGRAM, str(self.path), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=log,
                    env=environment,
                    cwd=working_directory(),
                    pass_fds=(lock,),
                    start_new_session=True,
                )
            _children[self.id] = child
            self.write("pid", str(child.pid).encode())
        except OSError as error:
            raise FarmhandError(f"{self.path}: {error.strerror or error}") from None
        finally:
            os.close(lock)

    def is_running(self) -> bool:
        """Return whether its child runs, whoever started it."""
        for child in _children.values():
            child.poll()  # so that none stays as a zombie
        try:
            lock = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def stop(self) -> None:
        """Ask the child to stop: it takes back or cancels what it has sent."""
        if self.is_running():
            with suppress(OSError, ValueError):
                os.kill(int(self.text("pid")), signal.SIGTERM)

    def status(self) -> int | None:
        """Return the exit status of its last child; None if it left none: it runs, or was killed."""
        try:
            return int(self.text("status"))
        except ValueError:
            return None

    def text(self, name: str) -> str:
        """Return one of its files, "" if there is none."""
        try:
            with open(self.path / name, "rb") as file:
                return file.read(_MOST_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    def end(self) -> dict[str, Any]:
        """Return what its child has printed, {} if that is no object."""
        with suppress(ValueError, RecursionError):
            found = json.loads(self.text("end.json"))
            return found if isinstance(found, dict) else {}
        return {}

    def cost_if_known(self) -> int | None:
        """Return what an ended job has cost in pico-dollars; None if a part of that is not known. Raise JournalHeld."""
        end = self.end()
        cost = cost_of(end.get("cost_usd"))
        return None if end.get("uncertain") or end.get("unpriced") or self.leases() else cost

    def leases(self) -> list[str]:
        """Return the ids of the tasks of a batch that was stopped which a host may still have. Raise JournalHeld."""
        journal = self.path / "out.jsonl.farmhand"
        if journal.exists():
            try:
                with closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True, timeout=0)) as db:
                    return [lease for (lease,) in db.execute("SELECT lease FROM line WHERE state = ?", (LEASED,))]
            except sqlite3.Error as error:
                if held_by_another(error):
                    raise JournalHeld(
                        f"another process holds {journal}", hint="call it again once that has ended"
                    ) from None
        return []

    def has_begun(self) -> bool:
        """Return whether a batch may have sent anything: it notes each task in its journal before that."""
        return (self.path / "out.jsonl.farmhand").exists()

    def done(self) -> int:
        """Return how many tasks of a batch have ended."""
        try:
            with open(self.path / "out.jsonl", "rb") as file:
                return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
        except OSError:
            return 0

    def results(self) -> list[dict[str, Any]]:
        """Return the results of a batch so far, in the input's order."""
        found = []
        for line in self.text("out.jsonl").split("\n"):  # an answer may have other ends of lines in it
            with suppress(ValueError, RecursionError):
                value = json.loads(line)
                if isinstance(value, dict) and isinstance(value.get("n"), int):
                    found.append(value)
        return sorted(found, key=lambda one: int(one["n"]))

    def remove(self) -> None:
        """Delete its files."""
        shutil.rmtree(self.path, ignore_errors=True)


#: The children of this process, by their jobs: what has ended is reaped.
_children: dict[str, subprocess.Popen[bytes]] = {}


def _locked(lock: int) -> bool:
    """Take the lock of a child that is to be started. One who only looks has it for a moment."""
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False
