"""Reading the operator's files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class Problem:
    """A file that is not as it should be; `line` 0 stands for the whole file."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}{f':{self.line}' if self.line else ''}: {self.reason}"


@dataclass
class Reader:
    """`problems` holds the files that could not be read."""

    problems: dict[Path, Problem] = field(default_factory=dict)

    def read(self, path: Path) -> bytes | None:
        """The content of a regular file; None if there is none, or if it cannot be read, which is then noted."""
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
        """The same as text. Bytes that are not UTF-8 are kept, as lone surrogates."""
        raw = self.read(path)
        return None if raw is None else raw.decode("utf-8", "surrogateescape")


def lines_of(path: Path | None) -> list[str]:
    """The lines of a regular file as shells count them: by line feeds alone. None where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape").split("\n") if path and path.is_file() else []
    except OSError:
        return []
