"""Reading of the operator's files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class Problem:
    """A problem with a file; `line` 0 means the whole file."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}{f':{self.line}' if self.line else ''}: {self.reason}"


@dataclass
class Reader:
    """A reader of files. `problems` holds those that could not be read."""

    problems: dict[Path, Problem] = field(default_factory=dict)

    def read(self, path: Path) -> bytes | None:
        """Return a regular file's content; None if it does not exist or, recorded as a problem, cannot be read."""
        try:
            if not path.is_file():
                return None
            if path.stat().st_size > MAX_BYTES:
                self.problems[path] = Problem(path, 0, f"larger than {MAX_BYTES >> 20} MB, so it is not looked into")
                return None
            return path.read_bytes()
        except OSError as error:
            self.problems[path] = Problem(path, 0, f"cannot be read: {error.strerror}")
            return None

    def text(self, path: Path) -> str | None:
        """Return the content as text, with non-UTF-8 bytes as lone surrogates; None as in `read`."""
        raw = self.read(path)
        return None if raw is None else raw.decode("utf-8", "surrogateescape")


def lines_of(path: Path | None) -> list[str]:
    """Return a regular file's lines, split at line feeds only, as shells count them; [] if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape").split("\n") if path and path.is_file() else []
    except OSError:
        return []
