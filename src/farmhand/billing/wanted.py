"""What the operator asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .names import WATCHED


@dataclass(frozen=True)
class Wanted:
    """What the operator asked for. `keep`: names that stay; `chosen`: the key's fingerprint, if there are several.

    `environ` is the running session's. `ask`: ask systemd's user manager (or launchd); `ask_shell`: start the
    operator's shells; without it their files are only read. `date` stands in the comments.
    """

    home: Path
    key_file: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    root: Path = Path("/")
    keep: Sequence[str] = ()
    chosen: str = ""
    edit_project: bool = False
    ask: bool = True
    ask_shell: bool = True
    date: str = ""

    @property
    def new_session(self) -> dict[str, str]:
        """The environment of a new terminal: what this one was given of watched names is gone there."""
        return {name: text for name, text in self.environ.items() if name not in WATCHED or name in self.keep}

    def short(self, path: Path) -> str:
        """The path as it is written in a comment."""
        return f"~/{path.relative_to(self.home)}" if path.is_relative_to(self.home) else str(path)

    def of_project(self, path: Path) -> bool:
        """Whether the file belongs to the current project and not to the operator's home."""
        cwd = self.cwd
        return cwd is not None and cwd != self.home and (path.is_relative_to(cwd) or path.name == ".envrc")
