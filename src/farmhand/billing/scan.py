"""A search of start-up files for watched variables that runs nothing, for callers that must not run the files.

It ignores conditions, functions and commands, so neither a match nor its absence is a fact.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from .kinds import MODES, Kind
from .names import ANY
from .reading import Problems, lines_of
from .verdict import Location, Setting

_SETS = re.compile(rf"(?:^|[\s;&|({{'\"])(?P<name>{ANY})=(?P<value>'[^']*'|\"[^\"]*\"|[^\s;&|)'\"]*)")
_FISH = re.compile(rf"(?:^|[\s;])set\s+(?P<flags>(?:-\S+\s+)+)(?P<name>{ANY})\s+(?P<value>'[^']*'|\"[^\"]*\"|[^\s;]+)")
#: fish's storage format of a universal, exported variable.
UNIVERSAL = r"^SETUVAR (?:--\S+ )*--export (?:--\S+ )*(?P<name>{}):(?P<value>.*)"
_UNIVERSAL = re.compile(UNIVERSAL.format(ANY))
_UNSETS = re.compile(rf"(?:^|[\s;])(?:unset|set\s+(?:-\S*e\S*|--erase)(?:\s+-\S+)*)\s+(?P<name>{ANY})\b")
_SOURCES = re.compile(r"(?:^|[\s;&|{])(?:source|\.)\s+(?P<path>'[^']+'|\"[^\"]+\"|[^\s;&|)]+)")
_DEPTH = 8


def settings(kind: Kind, home: Path, environ: Mapping[str, str], root: Path, problems: Problems) -> list[Setting]:
    """Return the settings in the files of a kind, in order, without those that a later line unsets."""
    found: list[Setting] = []
    for path in files(kind, home, environ, root):
        for item in _of(path, home, problems, _DEPTH):
            if isinstance(item, str):
                found = [setting for setting in found if setting.name != item]
            else:
                found.append(item)
    return found


def files(kind: Kind, home: Path, environ: Mapping[str, str], root: Path) -> list[Path]:
    """Return the start-up files that a shell of this kind reads, in order."""
    login, interactive = MODES[kind.mode]
    if kind.shell == "zsh":
        names = ["zshenv", *(["zprofile"] * login), *(["zshrc"] * interactive), *(["zlogin"] * login)]
        own = Path(environ.get("ZDOTDIR") or home)
        return [path for name in names for path in (root / "etc/zsh" / name, root / "etc" / name, own / f".{name}")]
    if kind.shell == "fish":
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish"
        parts = [*sorted((config / "conf.d").glob("*.fish")), root / "etc/fish/config.fish", config / "config.fish"]
        return [config / "fish_variables", *parts, config / "functions/claude.fish"]
    if kind.shell == "bash" and not login:
        return [root / "etc/bash.bashrc", root / "etc/bashrc", home / ".bashrc"]
    names = [".bash_profile", ".bash_login", ".profile"] if kind.shell == "bash" else [".profile"]
    own_profile = next((home / name for name in names if (home / name).exists()), None)
    found = [root / "etc/profile", *([own_profile] if own_profile else [])] if login else []
    if kind.shell == "sh" and interactive and environ.get("ENV"):
        found.append(_path(environ["ENV"], home, home))
    return found


def _of(path: Path, home: Path, problems: Problems, depth: int) -> Iterator[Setting | str]:
    """Yield the settings of a file and of the files it sources by a literal path; a name alone means unset."""
    for number, line in enumerate(lines_of(path, problems) if depth else [], 1):
        if line.lstrip().startswith("#"):
            continue
        for match in _UNSETS.finditer(line):
            yield match["name"]
        for match in (*_SETS.finditer(line), *_FISH.finditer(line), *_UNIVERSAL.finditer(line)):
            value = re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), match["value"].strip("'\""))
            plain = not re.search(r"[$`(]", match["value"]) or match["value"].startswith("'")
            via = "universal" if line.startswith("SETUVAR") else "alias" if re.match(r"\s*alias\s", line) else "export"
            yield Setting(match["name"], value if plain else None, Location(path, number), via)
        for match in _SOURCES.finditer(line):
            for item in _of(_path(match["path"].strip("'\""), home, path.parent), home, problems, depth - 1):
                if isinstance(item, Setting):
                    item.through = item.through or Location(path, number)
                yield item


def _path(written: str, home: Path, here: Path) -> Path:
    """Return a written path. If it needs a command or another variable, the result is a path that does not exist."""
    for name in ("${HOME}", "$HOME", "~"):
        if written.startswith(name):
            written = str(home) + written.removeprefix(name)
    return here / os.path.normpath(written)
