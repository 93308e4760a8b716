"""How far the figures were pushed, in a file that survives a crash at any moment.

PutMetricData has no token, and adds what it gets. So what a call will have pushed is written down before the call. A
call whose fate nobody knows (a crash, a connection that broke after the request) counts as done: then a figure may be
missing, but none is counted twice.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from farmhand.core.errors import FarmhandError
from farmhand.core.files import replace
from farmhand.core.typed import ready

_MOST = 1024 * 1024


class Mark(msgspec.Struct, frozen=True):
    """What was pushed: charges of `ledger` up to number `charge`, errors by kind of the agent that `started` then."""

    ledger: str
    charge: int
    started: float
    errors: dict[str, int]


class _Kept(msgspec.Struct):
    done: Mark
    #: The mark after a call that is under way, and what is in it, in pico-dollars.
    under_way: Mark | None = None
    pico: int = 0


class Marks:
    """The file `path`, of one process. `done` is None before the first run, and if the file cannot be understood."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: What of the last call is not known to have arrived, in pico-dollars; None if nothing is doubtful.
        self.doubtful_pico: int | None = None
        self.done: Mark | None = None
        try:
            with path.open("rb") as file:
                kept = msgspec.json.decode(file.read(_MOST), type=ready(_Kept))
        except FileNotFoundError:
            return
        except OSError as error:
            raise FarmhandError(f"{path} cannot be read: {error.strerror}", hint="site.yml puts it right") from None
        except ValueError:
            return
        self.done = kept.done
        if kept.under_way is not None:
            self.done, self.doubtful_pico = kept.under_way, kept.pico

    def begin(self, mark: Mark) -> None:
        """Take `mark` as done: what came before it is not pushed. Raise FarmhandError."""
        self._write(_Kept(mark))
        self.done = mark

    def calling(self, mark: Mark, pico: int) -> None:
        """Write down what a call will have pushed, before it. Raise FarmhandError; then it must not be made."""
        if self.done is None:
            raise ValueError("nothing was begun")
        self._write(_Kept(self.done, mark, pico))

    def refused(self) -> None:
        """Write down that the call has pushed nothing."""
        if self.done is not None:
            self._write(_Kept(self.done))

    def _write(self, kept: _Kept) -> None:
        try:
            replace(self._path, msgspec.json.encode(kept), mode=0o600)
        except OSError as error:
            raise FarmhandError(f"{self._path} cannot be written: {error.strerror}", hint="is the disk full?") from None
