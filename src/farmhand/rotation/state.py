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
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..core.errors import WireError, not_configured
from ..core.files import replace, xdg
from ..core.keys import is_fingerprint

#: The steps that can be requested, in order.
STEPS = ("staged", "switched", "verified", "drained", "retired")
#: All saved steps. One is saved before a step makes an external change, and another when the step is done.
_PROGRESS = ("staging", "staged", "switching", "switched", "verified", "drained", "retiring", "dead", "retired")
ROLLING_BACK, ROLLED_BACK = "rolling_back", "rolled_back"
_KNOWN = (*_PROGRESS, ROLLING_BACK, ROLLED_BACK)


@dataclass
class State:
    """A rotation from the key `old` to the key `new`, both fingerprints. Times are Unix seconds.

    `hosts` has each host that may have either key: `unreached`, `switched`, `verified`, `drained`; and the reason.
    """

    step: str
    old: str
    new: str
    started_at: float
    updated_at: float
    why: str = ""
    hosts: dict[str, dict[str, str]] = field(default_factory=dict)

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
    """The files in `directory`, which is created on the first write. Raises WireError `not_configured`."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._state = os.path.join(directory, "state.json")
        self._ages = os.path.join(directory, "ages.json")

    def load(self) -> State | None:
        """Return the current rotation, or else the last one; None if there was none."""
        found = self._read(self._state)
        if found is None:
            return None
        names = {item.name for item in fields(State)}
        try:
            state = State(**{name: value for name, value in found.items() if name in names})
        except TypeError:
            state = None
        if state is None or state.step not in _KNOWN or not (is_fingerprint(state.old) and is_fingerprint(state.new)):
            raise not_configured(f"{self._state} is not the state of a rotation", "move it away, then look at the keys")
        return state

    def save(self, state: State) -> None:
        """Save the state durably: it is on disk when this returns."""
        state.updated_at = time.time()
        self._write(self._state, asdict(state))

    def seen(self, fingerprint: str) -> float | None:
        """Return when this key was first seen; None if never."""
        seen = (self._read(self._ages) or {}).get(fingerprint)
        return float(seen) if isinstance(seen, (int, float)) else None

    def first_seen(self, fingerprint: str, otherwise: float) -> float:
        """Return when this key was first seen. If never, return `otherwise` and try to save it."""
        seen = self.seen(fingerprint)
        if seen is None:
            seen = otherwise
            with contextlib.suppress(WireError):
                self._write(self._ages, {**(self._read(self._ages) or {}), fingerprint: otherwise})
        return seen

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock, so that only one rotation runs. Raises WireError `rotation_running` with the process id."""
        self._make()
        path = os.path.join(self.directory, "lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise not_configured(f"{path}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                raise WireError(
                    "rotation_running",
                    f"another rotation of this key runs (process {who or '?'})",
                    "wait until it ends",
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _make(self) -> None:
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)
        except OSError as error:
            raise not_configured(f"{self.directory}: {error.strerror}") from None

    def _read(self, path: str) -> dict[str, Any] | None:
        try:
            with open(path, "rb") as file:
                found = json.loads(file.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise not_configured(f"{path}: {error.strerror}") from None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise not_configured(f"{path} is not a JSON object", "move it away, then look at the keys")
        return found

    def _write(self, path: str, value: dict[str, Any]) -> None:
        self._make()
        try:
            # A fixed name, so that the next write replaces a file left by a crash.
            replace(path, json.dumps(value, indent=1).encode() + b"\n", beside=f"{path}.new")
        except OSError as error:
            raise not_configured(f"{path}: {error.strerror}") from None
