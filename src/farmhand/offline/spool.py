"""The workstation's spool: tasks that no farm host could take yet, and their results.

    ~/.local/state/farmhand/spool/            (XDG_STATE_HOME), 0700; one for all farms
        waiting/NNNNNNNNNNNN-ID.json          one task each, in the order of their numbers
        results/ID.json                       the task with its result and the host it ran on

Each task names its farm by the path of the hosts file. It is sent to no other farm, but it is listed for all.

Files are 0600. They are written to a temporary name, synced and renamed: after a crash a task is there completely or
not at all, and a task whose result is already stored is not sent again. No file contains the key.
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
from pathlib import Path
from typing import Any

import msgspec

from farmhand.core import files
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError
from farmhand.core.settings import Settings, farm_name, old_spool_name, spool_name
from farmhand.core.task import TASK_ID
from farmhand.core.typed import ready

_NAME = re.compile(rf"(\d{{12}})-({TASK_ID.pattern})\.json")
#: How long results are kept, in seconds.
KEEP_S = 30 * 86400.0
#: How long another process may hold the spool, and how often it is tried again. Seconds.
_LOCK_S, _TRY_S = 30.0, 0.02
#: How many times a task is sent without a reply from its host: the task itself may be what crashes the hosts.
DELIVERIES = 3


class SpooledTask(msgspec.Struct, frozen=True, kw_only=True):
    """A waiting task, as in its file, and the file's path.

    `wanted` is the requested host ("": any), `sent` the host that may have it ("": none). `farm` is the hosts file for
    which it was spooled, "" for the default one. `deliveries` counts how often it was sent, except for refusals.
    `trace` is the trace of the call that spooled it, as fields of a task.
    """

    path: Path
    task: dict[str, Any]
    wanted: str
    sent: str
    queued_at: float
    farm: str = msgspec.field(default="", name="hosts_file")
    deliveries: int
    trace: dict[str, str] = {}

    @property
    def worn_out(self) -> bool:
        """Return whether it must not be sent again."""
        return self.deliveries >= DELIVERIES

    @property
    def id(self) -> str:
        """Return the task's id."""
        return str(self.task["id"])

    @property
    def as_sent(self) -> dict[str, Any]:
        """Return the task as it goes to a host: with its trace."""
        return self.task | self.trace


class SpooledResult(msgspec.Struct, frozen=True, kw_only=True):
    """A spooled task that has ended, as in its file. `at` is the time when its result arrived here."""

    task: dict[str, Any]
    result: dict[str, Any]
    host: str = ""
    at: float


def open_spool(conf: Settings, environ: Mapping[str, str] = os.environ) -> Spool:
    """Return the spool for these settings, with the tasks imported that an older version kept separately."""
    spool = Spool(Path(spool_name(environ)), farm_name(conf, environ))
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
        self,
        task: dict[str, Any],
        *,
        wanted: str = "",
        sent: str = "",
        queued_at: float | None = None,
        trace: dict[str, str] | None = None,
    ) -> SpooledTask:
        """Store `task` until a host has taken it. The same task with the same id is stored once.

        `queued_at` is in seconds since the epoch, None: now. Raise UsageError `id_conflict` if another task has the id.
        Raise NotConfigured if it cannot be stored: another user's directory, or a full disk.
        """
        task_id = str(task["id"])
        if TASK_ID.fullmatch(task_id) is None:
            hint = "1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit"
            raise UsageError(f"the task id {task_id!r:.80} is not one", code="invalid_task", hint=hint)
        with self._locked():
            known = self.find(task_id)
            if known is not None:
                return self.same(known, task)
            numbers = [int(match[1]) for path in self._files() if (match := _NAME.fullmatch(path.name))]
            entry = SpooledTask(
                path=self._waiting / f"{max(numbers, default=0) + 1:012d}-{task_id}.json",
                task=task,
                wanted=wanted,
                sent=sent,
                queued_at=time.time() if queued_at is None else queued_at,
                farm=self.farm or "",
                deliveries=int(bool(sent)),
                trace=trace or {},
            )
            _store(entry)
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
            found += [msgspec.structs.replace(entry, farm=str(apart.directory)) for entry in apart.each()]
        return found

    def _apart(self) -> list[Spool]:
        return [Spool(path) for path in sorted(self.directory.parent.glob(f"{self.directory.name}-*"))]

    def _all(self) -> Iterator[SpooledTask]:
        return filter(None, map(_read_waiting, self._files()))

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
            with contextlib.suppress(UsageError, OSError):
                # A task that cannot be removed there has been imported before, and may have ended since.
                if not self._has_ended(entry):
                    self.add(entry.task, wanted=entry.wanted, sent=entry.sent, queued_at=entry.queued_at)
                entry.path.unlink(missing_ok=True)
        for path in sorted((old / "results").glob("*.json")):
            with contextlib.suppress(OSError), self._locked():
                if not (self._results / path.name).exists():
                    path.rename(self._results / path.name)
        for path in (old / "waiting", old / "results", old / "lock", old):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()

    def broken(self) -> list[Path]:
        """Return the waiting files without a valid task, for example after manual edits."""
        paths = [path for spool in (self, *self._apart()) for path in spool._files()]
        return [path for path in paths if path.exists() and _read_waiting(path) is None]

    def find(self, task_id: str) -> SpooledTask | None:
        """Return the waiting task with this id. It is found by its file name: no other file is read."""
        named = (path for path in self._files() if path.name[len("NNNNNNNNNNNN-") :] == f"{task_id}.json")
        return next(filter(None, map(_read_waiting, named)), None)

    def look(self, task_id: str) -> SpooledTask | None:
        """Like `find`, but include tasks that an older version has kept separately."""
        return self.find(task_id) or next((entry for entry in self.elsewhere() if entry.id == task_id), None)

    def kept(self, task_id: str) -> SpooledResult | None:
        """Return the result of the spooled task with this id, if it has arrived."""
        return _read_kept(self._results / f"{task_id}.json") if TASK_ID.fullmatch(task_id) else None

    def results(self) -> list[SpooledResult]:
        """Return all stored results, oldest first."""
        return sorted(filter(None, map(_read_kept, self._results.glob("*.json"))), key=lambda kept: kept.at)

    def claim(self, task_id: str, host: str) -> str:
        """Record, before sending, that `host` may have the task from now on. Return the host that may have it.

        A host that may already have it takes precedence. Return "" if the task no longer waits.
        """
        with self._locked():
            entry = self.find(task_id)
            if entry is None:
                return ""
            if entry.sent in ("", host):
                _store(msgspec.structs.replace(entry, sent=host, deliveries=entry.deliveries + 1))
            return entry.sent or host

    def release(self, task_id: str, *, keep: bool = False) -> None:
        """Record that the host has refused the task; with `keep`, it may still have it from an earlier attempt."""
        with self._locked():
            entry = self.find(task_id)
            if entry is not None:
                sent = entry.sent if keep else ""
                _store(msgspec.structs.replace(entry, sent=sent, deliveries=max(0, entry.deliveries - 1)))

    def finish(self, task_id: str, result: dict[str, Any], host: str) -> None:
        """Store the task's result and remove it from the waiting tasks."""
        with self._locked():
            entry = self.find(task_id)
            if entry is None:
                return
            _write(
                self._results / f"{task_id}.json",
                {"task": entry.task, "result": result, "host": host, "at": time.time()},
            )
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
            for path in (*self._waiting.glob(".*new"), *self._results.glob(".*new")):
                path.unlink(missing_ok=True)
            for kept in self.results():
                if time.time() - kept.at > KEEP_S:
                    (self._results / f"{kept.task['id']}.json").unlink(missing_ok=True)
            for entry in filter(self._has_ended, self._all()):
                entry.path.unlink(missing_ok=True)

    def _has_ended(self, entry: SpooledTask) -> bool:
        kept = self.kept(entry.id)
        return kept is not None and kept.task == entry.task

    def _files(self) -> list[Path]:
        try:
            return [self._waiting / name for name in sorted(os.listdir(self._waiting)) if not name.startswith(".")]
        except OSError:
            return []

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the spool against this user's other processes while a file is written, never during a request.

        Raise NotConfigured if it cannot be used, FarmhandError if it is held for too long.
        """
        try:
            self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (self.directory, self._waiting, self._results):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_private(directory)
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.directory, error) from None
        until = time.monotonic() + _LOCK_S
        try:
            while not _taken(descriptor):
                if time.monotonic() > until:
                    what = f"another process holds the spool {self.directory}"
                    raise FarmhandError(what, hint="try again once that has ended", code="spool_held")
                time.sleep(_TRY_S)
            yield
        finally:
            os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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


def _store(entry: SpooledTask) -> None:
    document = msgspec.to_builtins(entry, enc_hook=str)
    del document["path"]
    _write(entry.path, document)


def _write(path: Path, document: dict[str, Any]) -> None:
    """Write the file atomically; it is on disk when this returns."""
    try:
        # Not msgspec's JSON: a host's text may hold a lone surrogate.
        files.replace(path, json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    except OSError as error:
        raise _unusable(path, error) from None


def _read(path: Path) -> dict[str, Any]:
    """Return the object in a file; {} if there is none."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _read_waiting(path: Path) -> SpooledTask | None:
    document, match = _read(path), _NAME.fullmatch(path.name)
    document.setdefault("deliveries", int(bool(document.get("sent"))))  # older versions did not count
    with contextlib.suppress(msgspec.ValidationError):
        entry = msgspec.convert({**document, "path": path}, ready(SpooledTask))
        if match is not None and entry.task.get("id") == match[2]:
            return entry
    return None


def _read_kept(path: Path) -> SpooledResult | None:
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(_read(path), ready(SpooledResult))
    return None
