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
from .reading import Reader
from .verdict import Location, Setting

_SETS = re.compile(rf"(?:^|[\s;&|({{'\"])(?P<name>{ANY})=(?P<value>'[^']*'|\"[^\"]*\"|[^\s;&|)'\"]*)")
_FISH = re.compile(rf"(?:^|[\s;])set\s+(?P<flags>(?:-\S+\s+)+)(?P<name>{ANY})\s+(?P<value>'[^']*'|\"[^\"]*\"|[^\s;]+)")
#: fish's storage format of a universal, exported variable.
UNIVERSAL = re.compile(rf"SETUVAR (?:--\S+ )*--export (?:--\S+ )*(?P<name>{ANY}):(?P<value>.*)")
_UNSETS = re.compile(rf"(?:^|[\s;])(?:unset|set\s+(?:-\S*e\S*|--erase)(?:\s+-\S+)*)\s+(?P<name>{ANY})\b")
_SOURCES = re.compile(r"(?:^|[\s;&|{])(?:source|\.)\s+(?P<path>'[^']+'|\"[^\"]+\"|[^\s;&|)]+)")
_DEPTH = 8


def settings(kind: Kind, home: Path, environ: Mapping[str, str], root: Path, reader: Reader) -> Iterator[Setting]:
    """Return the settings in the files of a kind, in order, without those that a later line unsets."""
    found: list[Setting] = []
    for path in files(kind, home, environ, root):
        for item in _of(path, home, reader, _DEPTH):
            if isinstance(item, str):
                found = [setting for setting in found if setting.name != item]
            else:
                found.append(item)
    return iter(found)


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


def _of(path: Path, home: Path, reader: Reader, depth: int) -> Iterator[Setting | str]:
    """Yield the settings of a file and of the files it sources by a literal path; a name alone means unset."""
    text = reader.text(path)
    if text is None or depth == 0:
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("#"):
            continue
        for match in _UNSETS.finditer(line):
            yield match["name"]
        for match in (*_SETS.finditer(line), *_FISH.finditer(line), *UNIVERSAL.finditer(line)):
            value = re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), match["value"].strip("'\""))
            plain = not re.search(r"[$`(]", match["value"]) or match["value"].startswith("'")
            via = "universal" if line.startswith("SETUVAR") else "alias" if re.match(r"\s*alias\s", line) else "export"
            yield Setting(match["name"], value if plain else None, Location(path, number), via)
        for match in _SOURCES.finditer(line):
            for item in _of(_path(match["path"].strip("'\""), home, path.parent), home, reader, depth - 1):
                if isinstance(item, Setting) and item.through is None:
                    item = Setting(item.name, item.text, item.location, item.via, "", Location(path, number))
                yield item


def _path(written: str, home: Path, here: Path) -> Path:
    """Return a written path. If it needs a command or another variable, the result is a path that does not exist."""
    for name in ("${HOME}", "$HOME", "~"):
        if written.startswith(name):
            written = str(home) + written.removeprefix(name)
    return here / os.path.normpath(written)
