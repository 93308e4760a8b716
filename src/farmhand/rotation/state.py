"""The saved state of a rotation, in a file that survives a crash at any point. It never holds a key.

~/.local/state/farmhand/rotation/         (XDG_STATE_HOME), 0700; other key sources than the default have their own
    state.json                            the current or else the last rotation
    ages.json                             fingerprint → when it was first seen
    lock                                  held during changes
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from farmhand.core.errors import WireError, not_configured
from farmhand.core.files import replace, xdg
from farmhand.core.keys import is_fingerprint
from farmhand.core.typed import ready

#: The steps that can be requested, in order.
STEPS = ("staged", "switched", "verified", "drained", "retired")
#: All saved steps. One is saved before a step makes an external change, and another when the step is done.
_PROGRESS = ("staging", "staged", "switching", "switched", "verified", "drained", "retiring", "dead", "retired")
ROLLING_BACK, ROLLED_BACK = "rolling_back", "rolled_back"
T = TypeVar("T")


@dataclass
class State:
    """A rotation from the key `old` to the key `new`, both fingerprints. Times are Unix seconds.

    `hosts` has each host that may have either key: `unreached`, `switched`, `verified`, `drained`, or `back` (to the
    old key); and the reason.
    """

    step: str
    old: str
    new: str
    started_at: float
    updated_at: float
    why: str = ""
    hosts: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.step in (*_PROGRESS, ROLLING_BACK, ROLLED_BACK)
        if not (known and is_fingerprint(self.old) and is_fingerprint(self.new)):
            raise ValueError("not the state of a rotation")

    @property
    def unfinished(self) -> bool:
        """Return whether something remains to be done or rolled back."""
        return self.step not in ("retired", ROLLED_BACK)

    def reached(self, step: str) -> bool:
        """Return whether `step` is done."""
        return self.step in _PROGRESS and _PROGRESS.index(self.step) >= _PROGRESS.index(step)


def state_dir(place: str, usual: bool, environ: Mapping[str, str] = os.environ) -> str:
    """Return the state directory for this key source. `usual` means it is the default source."""
    mark = "" if usual else f"-{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}"
    return os.path.join(xdg("XDG_STATE_HOME", environ), "farmhand", f"rotation{mark}")


class Memory:
    """The files in `directory`, which is created on the first write. Raise WireError `not_configured`."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._state = os.path.join(directory, "state.json")
        self._ages = os.path.join(directory, "ages.json")

    def load(self) -> State | None:
        """Return the current rotation, or else the last one; None if there was none."""
        return _read(self._state, State)

    def save(self, state: State) -> None:
        """Save the state durably: it is on disk when this returns."""
        state.updated_at = time.time()
        self._write(self._state, state)

    def seen(self, fingerprint: str) -> float | None:
        """Return when this key was first seen; None if never."""
        return (_read(self._ages, dict[str, float]) or {}).get(fingerprint)

    def first_seen(self, fingerprint: str, otherwise: float) -> float:
        """Return when this key was first seen. If never, return `otherwise` and try to save it."""
        ages = _read(self._ages, dict[str, float]) or {}
        if fingerprint not in ages:
            with contextlib.suppress(WireError):
                self._write(self._ages, ages | {fingerprint: otherwise})
        return ages.get(fingerprint, otherwise)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock, so that only one rotation runs. Raise WireError `rotation_running` with the process id."""
        path = os.path.join(self.directory, "lock")
        self._make()
        with _named(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = file.read(32).decode("ascii", "replace").strip() or "?"
                message = f"another rotation of this key runs (process {who})"
                raise WireError("rotation_running", message, "wait until it ends") from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
            yield

    def _make(self) -> None:
        with _named(self.directory):
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)

    def _write(self, path: str, value: object) -> None:
        self._make()
        with _named(path):
            # A fixed name, so that the next write replaces a file left by a crash.
            replace(path, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n", beside=f"{path}.new")


def _read(path: str, kind: type[T]) -> T | None:
    """Return the content of a file; None if there is no file."""
    try:
        with _named(path), contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=ready(kind))
    except (msgspec.DecodeError, RecursionError):
        raise not_configured(f"{path} is not what a rotation saves", "move it away, then look at the keys") from None
    return None


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Report a failure to use the file `path`."""
    try:
        yield
    except OSError as error:
        raise not_configured(f"{path}: {error.strerror}") from None
