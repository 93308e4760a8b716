"""Which files each shell reads when it starts, in its order, and the parsed files themselves.

Sources: bash(1) INVOCATION, zsh(1) STARTUP/SHUTDOWN FILES, dash(1), fish(1) and Debian's and Apple's builds of them.
"""

from __future__ import annotations

import re
from pathlib import Path

from . import fish, posix
from .interp import Interpreter
from .names import METERED
from .reading import Problem, Reader
from .state import Place, State, Value
from .syntax import Block, Script, SyntaxProblem, mark_alone

SHELLS = ("bash", "zsh", "fish", "sh")
#: mode → (login, interactive)
MODES = {"login": (True, False), "interactive": (False, True), "login interactive": (True, True)}
#: Files that are kept for fish's universal variables, beside config.fish.
_UNIVERSAL = re.compile(r"SETUVAR (?:(--\S+) )*([A-Za-z_]\w*):(.*)")
_NAMED = re.compile("|".join((*METERED, "claude")))


class Files:
    """The shells' files, each parsed once. `problems` are those that could not be followed and might matter."""

    def __init__(self, root: Path, reader: Reader) -> None:
        self.root = root
        self.reader = reader
        self._parsed: dict[tuple[Path, str], Script | None] = {}

    def load(self, path: Path, shell: str) -> Script | None:
        """The file as `shell` reads it; None if there is none. Of a broken file the lines that make sense alone."""
        dialect = shell if shell in ("fish", "zsh") else "sh"
        key = (path, dialect)
        if key not in self._parsed:
            self._parsed[key] = self._load(path, dialect)
        return self._parsed[key]

    def _load(self, path: Path, dialect: str) -> Script | None:
        text = self.reader.text(path)
        if text is None:
            return None
        try:
            return _parse(text, dialect)
        except (SyntaxProblem, RecursionError) as error:
            if _NAMED.search(text):
                line = error.line if isinstance(error, SyntaxProblem) else 0
                reason = error.reason if isinstance(error, SyntaxProblem) else "nested too deeply"
                self.reader.problems[path] = Problem(path, line, f"not understood from here on: {reason}")
            return _by_line(text, dialect)

    def run(self, state: State) -> None:
        """Follow all that a shell of this kind reads."""
        shell = Interpreter(state, self.load)
        {"bash": self._bash, "zsh": self._zsh, "fish": self._fish, "sh": self._sh}[state.shell](shell)

    def first(self, shell: Interpreter, *paths: Path) -> None:
        """Follow the first of `paths` that is there."""
        for path in paths:
            if path.is_file():
                shell.file(path)
                return

    def _bash(self, shell: Interpreter) -> None:
        state, home = shell.state, shell.state.home
        if state.login:
            self.first(shell, self.root / "etc/profile")
            self.first(shell, home / ".bash_profile", home / ".bash_login", home / ".profile")
        elif state.interactive:
            self.first(shell, self.root / "etc/bash.bashrc", self.root / "etc/bashrc")
            shell.file(home / ".bashrc")

    def _sh(self, shell: Interpreter) -> None:
        state = shell.state
        if state.login:
            self.first(shell, self.root / "etc/profile")
            shell.file(state.home / ".profile")
        named = state.text("ENV")
        if state.interactive and named:
            shell.file(Path(named.replace("$HOME", str(state.home)).replace("~", str(state.home), 1)))

    def _zsh(self, shell: Interpreter) -> None:
        state = shell.state
        names = ["zshenv"]
        names += ["zprofile"] if state.login else []
        names += ["zshrc"] if state.interactive else []
        names += ["zlogin"] if state.login else []
        for name in names:
            self.first(shell, self.root / "etc/zsh" / name, self.root / "etc" / name)
            shell.file(Path(state.text("ZDOTDIR") or state.home) / f".{name}")

    def _fish(self, shell: Interpreter) -> None:
        state = shell.state
        config = Path(state.text("XDG_CONFIG_HOME") or state.home / ".config") / "fish"
        system = [self.root / place for place in ("etc/fish", "opt/homebrew/etc/fish", "usr/local/etc/fish")]
        for name, value in universal(config / "fish_variables", self.reader):
            if name not in state.variables:
                shell.assign(name, value)
        snippets: dict[str, Path] = {}
        for directory in (config, *system):
            for path in sorted((directory / "conf.d").glob("*.fish")):
                snippets.setdefault(path.name, path)
        for name in sorted(snippets):
            shell.file(snippets[name])
        for directory in system:
            shell.file(directory / "config.fish")
        shell.file(config / "config.fish")
        # Functions are loaded when they are called; only one of this name matters.
        if "claude" not in state.functions and "claude" not in state.aliases:
            shell.file(config / "functions" / "claude.fish")


def universal(path: Path, reader: Reader) -> list[tuple[str, Value]]:
    """fish's universal variables that are exported, with their lines."""
    found = []
    for number, line in enumerate((reader.text(path) or "").split("\n"), start=1):
        match = _UNIVERSAL.match(line)
        if match and "--export" in line.split(":", 1)[0]:
            value = re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), match[3])
            found.append((match[2], Value(value, Place(path, number), exported=True, via="universal")))
    return found


def _parse(text: str, dialect: str) -> Script:
    return fish.parse(text) if dialect == "fish" else posix.parse(text, zsh=dialect == "zsh")


def _by_line(text: str, dialect: str) -> Script:
    """The lines that are whole commands by themselves, each where it stands. Never edited by."""
    body = Block()
    starts = [0]
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not _NAMED.search(line):
            continue
        try:
            # Blank lines before it keep its number.
            body.items += _parse("\n" * number + line, dialect).body.items
        except (SyntaxProblem, RecursionError):
            continue
    mark_alone(body)
    return Script(text, body, starts)
