"""The workstation's spool: tasks that no farm host could take yet, and their results.

    ~/.local/state/farmhand/spool/            (XDG_STATE_HOME), 0700; one for all farms
        waiting/NNNNNNNNNNNN-ID.json          one task each, in the order of their numbers
        results/ID.json                       the task with its result and the host it ran on

Each task names its farm by the path of the hosts file. It is sent to no other farm, but it is listed for all.

Files are 0600. They are written to a temporary name, synced and renamed: after a crash a task is there completely or
not at all, and a task whose result is already stored is not sent again. No file contains the key. Standard library
only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farmhand.core import files
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError
from farmhand.core.settings import Settings, farm_name, old_spool_name, spool_name

#: Equal to farmhand.core.task.TASK_ID, which is not imported here to keep the start short; a test compares them.
TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME = re.compile(r"(\d{12})-([A-Za-z0-9][A-Za-z0-9._-]{0,63})\.json")
#: How long results are kept, in seconds.
KEEP_S = 30 * 86400.0
#: How many times a task is sent without a reply from its host: the task itself may be what crashes the hosts.
DELIVERIES = 3


@dataclass(frozen=True, kw_only=True)
class SpooledTask:
    """A spooled task. `wanted` is the requested host ("": any), `sent` the host that may have it ("": none).

    `farm` is the hosts file for which it was spooled, "" for the default one. `deliveries` counts how often it was
    sent, except for refusals by a host.
    """

    path: Path
    number: int
    task: dict[str, Any]
    wanted: str
    sent: str
    queued_at: float
    farm: str = ""
    deliveries: int = 0

    @property
    def worn_out(self) -> bool:
        """Return whether it must not be sent again."""
        return self.deliveries >= DELIVERIES

    @property
    def id(self) -> str:
        """Return the task's id."""
        return str(self.task["id"])


@dataclass(frozen=True, kw_only=True)
class SpooledResult:
    """A spooled task that has ended. `at` is the time when its result arrived here."""

    task: dict[str, Any]
    result: dict[str, Any]
    host: str
    at: float


def spool_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of the spool."""
    return Path(spool_name(environ))


def open_spool(conf: Settings, environ: Mapping[str, str] = os.environ) -> Spool:
    """Return the spool for these settings, with the tasks imported that an older version kept separately."""
    spool = Spool(spool_dir(environ), farm_name(conf, environ))
    old = old_spool_name(conf, environ)
    if old and os.path.isdir(old):
        # If it cannot be written, its tasks are still listed as another farm's.
        with contextlib.suppress(FarmhandError):
            spool.adopt(Path(old))
    return spool


class Spool:
    """The spool in `directory`, which is created on first use, as seen by `farm`; None: all farms."""

    def __init__(self, directory: Path, farm: str | None = None) -> None:
        self.directory = directory
        self.farm = farm
        self._waiting = self.directory / "waiting"
        self._results = self.directory / "results"

    def add(
        self, task: dict[str, Any], *, wanted: str = "", sent: str = "", queued_at: float | None = None
    ) -> SpooledTask:
        """Store `task` until a host has taken it. The same task with the same id is stored once.

        `queued_at` is in seconds since the epoch, None: now. Raise UsageError `id_conflict` if another task has the id.
        Raise NotConfigured if it cannot be stored: another user's directory, or a full disk.
        """
        check_id(task)
        with self._locked():
            known = self.find(str(task["id"]))
            if known is not None:
                return self.same(known, task)
            number = max(self._numbers(), default=0) + 1
            path = self._waiting / f"{number:012d}-{task['id']}.json"
            entry = SpooledTask(
                path=path,
                number=number,
                task=task,
                wanted=wanted,
                sent=sent,
                queued_at=time.time() if queued_at is None else queued_at,
                farm=self.farm or "",
            )
            self._store(entry, deliveries=int(bool(sent)))
            return entry

    def waiting(self) -> list[SpooledTask]:
        """Return the tasks that wait for this farm, oldest first; files without a valid task are in `broken`."""
        return list(self.each())

    def each(self) -> Iterator[SpooledTask]:
        """Yield the tasks of `waiting`, each read on demand: a call with little time reads only what it sends."""
        return (entry for entry in self._all() if self._is_ours(entry))

    def elsewhere(self) -> list[SpooledTask]:
        """Return other farms' waiting tasks, oldest first, and those that an older version kept separately."""
        found = [entry for entry in self._all() if not self._is_ours(entry)]
        for apart in self._apart():
            found += [replace(entry, farm=str(apart.directory)) for entry in apart.each()]
        return found

    def _apart(self) -> list[Spool]:
        return [Spool(path) for path in sorted(self.directory.parent.glob(f"{self.directory.name}-*"))]

    def _all(self) -> Iterator[SpooledTask]:
        return (entry for entry in map(_read_waiting, self._files()) if entry is not None)

    def _is_ours(self, entry: SpooledTask) -> bool:
        return self.farm in (None, entry.farm)

    def same(self, known: SpooledTask, task: dict[str, Any]) -> SpooledTask:
        """Return `known` if it is `task` for this farm; raise UsageError `id_conflict` if another task has its id."""
        if known.task != task or not self._is_ours(known):
            raise id_conflict(known.id)
        return known

    def adopt(self, old: Path) -> None:
        """Import this farm's tasks, and results, that an older version has kept in the directory `old`.

        A task whose id is used by another task here stays there, and is still listed.
        """
        before = Spool(old)
        with contextlib.suppress(OSError):
            before.tidy()
        for entry in before.waiting():
            kept = self.kept(entry.id)
            with contextlib.suppress(UsageError, OSError):
                # A task that cannot be removed there has been imported before, and may have ended since.
                if kept is None or kept.task != entry.task:
                    self.add(entry.task, wanted=entry.wanted, sent=entry.sent, queued_at=entry.queued_at)
                entry.path.unlink(missing_ok=True)
        for path in sorted((old / "results").glob("*.json")):
            with contextlib.suppress(OSError), self._locked():
                if not (self._results / path.name).exists():
                    path.rename(self._results / path.name)
        for path in (old / "waiting", old / "results", old / "lock", old):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()

    def clear(self) -> None:
        """Delete every task that waits for this farm."""
        for entry in self.waiting():
            self.drop(entry.id)

    def broken(self) -> list[Path]:
        """Return the waiting files without a valid task, for example after manual edits."""
        files = [path for spool in (self, *self._apart()) for path in spool._files()]
        return [path for path in files if path.exists() and _read_waiting(path) is None]

    def find(self, task_id: str) -> SpooledTask | None:
        """Return the waiting task with this id. It is found by its file name: no other file is read."""
        named = (path for path in self._files() if (match := _NAME.fullmatch(path.name)) and match[2] == task_id)
        return next((entry for entry in map(_read_waiting, named) if entry is not None), None)

    def look(self, task_id: str) -> SpooledTask | None:
        """Like `find`, but include tasks that an older version has kept separately."""
        return self.find(task_id) or next((entry for entry in self.elsewhere() if entry.id == task_id), None)

    def kept(self, task_id: str) -> SpooledResult | None:
        """Return the result of the spooled task with this id, if it has arrived."""
        if TASK_ID.fullmatch(task_id) is None:
            return None
        return _read_kept(self._results / f"{task_id}.json")

    def results(self) -> list[SpooledResult]:
        """Return all stored results, oldest first."""
        found = [_read_kept(path) for path in self._results.glob("*.json")] if self._results.is_dir() else []
        return sorted((kept for kept in found if kept is not None), key=lambda kept: kept.at)

    def claim(self, task_id: str, host: str) -> str:
        """Record, before sending, that `host` may have the task from now on. Return the host that may have it.

        A host that may already have it takes precedence. Return "" if the task no longer waits.
        """
        with self._locked():
            entry = self.find(task_id)
            if entry is None:
                return ""
            if entry.sent in ("", host):
                self._store(entry, sent=host, deliveries=entry.deliveries + 1)
            return entry.sent or host

    def release(self, task_id: str, *, keep: bool = False) -> None:
        """Record that the host has refused the task; with `keep`, it may still have it from an earlier attempt."""
        with self._locked():
            entry = self.find(task_id)
            if entry is not None:
                self._store(entry, sent=entry.sent if keep else "", deliveries=max(0, entry.deliveries - 1))

    def give_up(self, entry: SpooledTask) -> dict[str, Any]:
        """Store as failed a task that was sent as often as allowed without a reply. Return its result."""
        times = f"it was sent {entry.deliveries} times, and each time its host was gone before it said a word"
        hint = "see the journal of that host's agent, and change the task before it is given again with another id"
        error = {"code": "agent_crashed", "message": times, "hint": hint}
        result = {"id": entry.id, "state": "failed", "text": "", "error": error}
        self.finish(entry.id, result, entry.sent)
        return result

    def finish(self, task_id: str, result: dict[str, Any], host: str) -> None:
        """Store the task's result and remove it from the waiting tasks."""
        with self._locked():
            entry = self.find(task_id)
            if entry is None:
                return
            kept = {"task": entry.task, "result": result, "host": host, "at": time.time()}
            _write(self._results / f"{task_id}.json", kept)
            # Not synced: if a crash brings it back, its result is there and `tidy` removes it again.
            entry.path.unlink(missing_ok=True)

    def drop(self, task_id: str) -> bool:
        """Delete a waiting task of any farm. Return False if there is none with this id."""
        with self._locked():
            entry = self.look(task_id)
            if entry is not None:
                entry.path.unlink(missing_ok=True)
                files.sync_directory(entry.path.parent)
            return entry is not None

    def tidy(self) -> None:
        """Remove results that are too old, tasks whose result is stored, and partly written files left by a crash."""
        with self._locked():
            for directory in (self._waiting, self._results):
                for path in directory.glob(".*.new"):
                    path.unlink(missing_ok=True)
            for kept in self.results():
                if time.time() - kept.at > KEEP_S:
                    (self._results / f"{kept.task['id']}.json").unlink(missing_ok=True)
            for entry in self._all():
                kept_already = self.kept(entry.id)
                if kept_already is not None and kept_already.task == entry.task:
                    entry.path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        try:
            names = sorted(name for name in os.listdir(self._waiting) if not name.startswith("."))
        except OSError:
            return []
        return [self._waiting / name for name in names]

    def _numbers(self) -> Iterator[int]:
        for path in self._files():
            if match := _NAME.fullmatch(path.name):
                yield int(match[1])

    @staticmethod
    def _store(entry: SpooledTask, *, deliveries: int, sent: str | None = None) -> None:
        whom = entry.sent if sent is None else sent
        about = {"wanted": entry.wanted, "sent": whom, "queued_at": entry.queued_at, "hosts_file": entry.farm}
        _write(entry.path, {"task": entry.task, **about, "deliveries": deliveries})

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the spool against this user's other processes while a file is written, never during a request."""
        try:
            for directory in (self.directory, self._waiting, self._results):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_private(directory)
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.directory, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def check_id(task: dict[str, Any]) -> None:
    """Reject ids that are unsafe as part of a file's name. Raise UsageError."""
    if TASK_ID.fullmatch(str(task["id"])) is None:
        hint = "1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit"
        raise UsageError(f"the task id {str(task['id'])!r:.80} is not one", code="invalid_task", hint=hint)


def id_conflict(task_id: str) -> UsageError:
    """Return the error for an id that another task has."""
    message = f"another task with the id {task_id} is in the spool"
    return UsageError(message, code="id_conflict", hint="choose another id")


def _check_private(directory: Path) -> None:
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise NotConfigured(f"the spool {directory} is not a directory of this user", hint="move it away")
    if status.st_mode & 0o077:
        raise NotConfigured(f"the spool {directory} is open to others", hint=f"chmod 700 {directory}")


def _unusable(path: Path, error: OSError) -> NotConfigured:
    hint = "make room and the directory writable, or use --fallback none"
    return NotConfigured(f"the spool {path} cannot be written: {error.strerror}", hint=hint)


def _write(path: Path, document: dict[str, Any]) -> None:
    """Write the file atomically; it is on disk when this returns."""
    try:
        files.replace(path, json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    except OSError as error:
        raise _unusable(path, error) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _read_waiting(path: Path) -> SpooledTask | None:
    document, match = _read(path), _NAME.fullmatch(path.name)
    task = document.get("task")
    if match is None or not isinstance(task, dict) or task.get("id") != match[2]:
        return None
    wanted, sent, queued_at = (document.get(name) for name in ("wanted", "sent", "queued_at"))
    farm = document.get("hosts_file", "")
    if not isinstance(wanted, str) or not isinstance(sent, str) or not isinstance(farm, str):
        return None
    deliveries = document.get("deliveries", int(bool(sent)))
    if not isinstance(queued_at, int | float) or not isinstance(deliveries, int):
        return None
    return SpooledTask(
        path=path,
        number=int(match[1]),
        task=task,
        wanted=wanted,
        sent=sent,
        queued_at=float(queued_at),
        farm=farm,
        deliveries=deliveries,
    )


def _read_kept(path: Path) -> SpooledResult | None:
    document = _read(path)
    task, result, at = document.get("task"), document.get("result"), document.get("at")
    if not isinstance(task, dict) or not isinstance(result, dict) or not isinstance(at, int | float):
        return None
    return SpooledResult(task=task, result=result, host=str(document.get("host") or ""), at=float(at))
