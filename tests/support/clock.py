"""A clock that a test can set: the time of day that a daemon sees is shifted, what it measures waiting by is not."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

_DOUBLE = struct.Struct("d")
_REAL = time.time
_offset: list[mmap.mmap] = []


class Clock:
    """The file that holds the offset, from the side of the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(_DOUBLE.pack(0.0))

    def jump(self, seconds: float) -> None:
        """From now on the daemon's clock is off by `seconds`."""
        with self.path.open("r+b") as file:
            file.write(_DOUBLE.pack(seconds))


def install() -> None:
    """Have `time.time` of this process go by the file of `follow`, once there is one."""
    time.time = _shifted


def follow(path: Path) -> None:
    """Go by the offset in `path` from now on."""
    with path.open("r+b") as file:
        _offset.append(mmap.mmap(file.fileno(), _DOUBLE.size))


def _shifted() -> float:
    return _REAL() + (float(_DOUBLE.unpack_from(_offset[0])[0]) if _offset else 0.0)
