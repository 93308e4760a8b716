"""The current project's .envrc and .env.

The CLI reads neither (measured with 2.1.330); direnv brings them in where it is hooked into the shell.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from .dynamic import lines
from .interp import Interpreter
from .names import WATCHED
from .startup import Files
from .state import Place, State, Value
from .syntax import Simple


@dataclass
class Project:
    """`there`: what the files set; `exported`: what of it a shell in the project gets."""

    there: list[tuple[str, Value]] = field(default_factory=list)
    exported: dict[str, Value] = field(default_factory=dict)


def project_environment(state: State, cwd: Path | None, files: Files) -> Project:
    """What the project's files would put into a shell that stands in `cwd`."""
    project = Project()
    if cwd is None:
        return project
    project.there += _dotenv(cwd / ".env")
    envrc = next((path for path in (directory / ".envrc" for directory in (cwd, *cwd.parents)) if path.is_file()), None)
    if envrc is None:
        return project
    inner = State("bash", False, False, state.home, dict(state.variables))
    reader = _Envrc(inner, files)
    reader.file(envrc)
    project.there += inner.passed
    if state.direnv and state.interactive and _allowed(envrc, state):
        project.exported = {
            name: value
            for name, value in inner.environment().items()
            if name in WATCHED and value is not state.variables.get(name)
        }
    return project


class _Envrc(Interpreter):
    """bash with the few functions of direnv's standard library that bring in more."""

    def __init__(self, state: State, files: Files) -> None:
        super().__init__(state, files.load)

    def simple(self, command: Simple) -> bool | None:
        name = command.words[0].literal
        named = command.words[1].literal if len(command.words) > 1 else None
        if name in ("dotenv", "dotenv_if_exists"):
            for key, value in _dotenv(self.path.parent / (named or ".env")):
                self.assign(key, Value(value.text, value.place, exported=True, via="file", through=self.place(command)))
            return True
        if name in ("source_env", "source_env_if_exists") and named:
            path = self.path.parent / named
            return self.file(path / ".envrc" if path.is_dir() else path, through=self.place(command))
        return super().simple(command)


def _dotenv(path: Path) -> list[tuple[str, Value]]:
    return [(name, Value(text, Place(path, line), via="dotenv")) for line, name, text in lines(path)]


def _allowed(envrc: Path, state: State) -> bool:
    """Whether the operator has run `direnv allow` on it: a file named by the digest of its path and content."""
    try:
        name = hashlib.sha256(f"{envrc.resolve()}\n".encode() + envrc.read_bytes()).hexdigest()
    except OSError:
        return False
    data = state.text("XDG_DATA_HOME") or str(state.home / ".local/share")
    return (Path(data) / "direnv/allow" / name).exists()
