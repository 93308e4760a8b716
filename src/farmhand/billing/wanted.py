"""The operator's request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .names import WATCHED


@dataclass(frozen=True)
class Wanted:
    """The operator's request. `keep`: names to keep; `chosen`: the fingerprint of the key to use, if there are several.

    `environ` is the running session's. `ask`: query systemd's user manager (or launchd). `ask_shell`: start the
    operator's shells; otherwise their files are only read. `date` is used in comments.
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
        """Return a new terminal's environment: without this session's watched names, except those in `keep`."""
        return {name: text for name, text in self.environ.items() if name not in WATCHED or name in self.keep}

    def short(self, path: Path) -> str:
        """Return the path as written in a comment."""
        return f"~/{path.relative_to(self.home)}" if path.is_relative_to(self.home) else str(path)

    def of_project(self, path: Path) -> bool:
        """Return whether the file belongs to the current project and not to the operator's home."""
        cwd = self.cwd
        return cwd is not None and cwd != self.home and (path.is_relative_to(cwd) or path.name == ".envrc")
