"""A daemon whose clock can be set: `python -m tests.chaos.clock FILE serve …`, FILE holds the offset as one double.

What the daemon takes for the time of day is shifted; what it measures waiting by is not, as with a real clock.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

_DOUBLE = struct.Struct("d")
_REAL = time.time


class Clock:
    """The file, from the side of the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(_DOUBLE.pack(0.0))

    def jump(self, seconds: float) -> None:
        """From now on the daemon's clock is off by `seconds`."""
        with self.path.open("r+b") as file:
            file.write(_DOUBLE.pack(seconds))


def main() -> int:
    """Shift the clock before the daemon's modules are there, then be the daemon."""
    with Path(sys.argv[1]).open("r+b") as file:
        shared = mmap.mmap(file.fileno(), _DOUBLE.size)
    time.time = lambda: _REAL() + float(_DOUBLE.unpack_from(shared)[0])
    from farmhand.agent.main import main as agent

    return agent(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
