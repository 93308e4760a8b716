"""Find API keys and logins in a host's login shells and homes, and remove them.

It has three layers: `clean_*` are pure functions from text to text and findings, `places` lists the files, `Scrubber`
applies the changes. No message, finding or diff of this module contains any part of a secret.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..core.files import replace
from ..core.keys import KEY, redact

Kind = Literal["shell", "environment", "json", "login"]

PROTECTED = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
#: Larger files are not read into memory. The CLI's own .claude.json grows to some megabytes.
MAX_BYTES = 64 << 20
_NAMES = "|".join(PROTECTED)
#: One shell word: quoted pieces, $(…), `…`, and anything else up to white space or an operator. The quantifiers are
#: possessive, so that no input causes backtracking.
_QUOTED = r"\"(?:\\.|\$\([^()]*\)|[^\"\\])*+\""
_WORD = rf"(?:'[^']*'|{_QUOTED}|\$\([^()]*\)|`[^`]*`|\\.|[^\s;&|()'\"`\\])*+"
#: An empty value is no secret: `NAME= command` and `export NAME=""` may stay.
_EMPTY = r"(?!(?:''|\"\")?(?:[\s;&|)]|$))"
_ASSIGN = re.compile(rf"(?<![\w$])(?P<name>{_NAMES})={_EMPTY}{_WORD}")
_SET = re.compile(rf"(?:\bset\s+(?:--?[\w-]+\s+)+|\bsetenv\s+)(?P<name>{_NAMES})\s+{_EMPTY}{_WORD}")
_LONE_COMMAND = re.compile(r"(?:export|declare|typeset|readonly)(?:\s+-\w+)*\s*$")
#: NAME=value, in the syntax of pam_env.conf, and of fish's universal variables.
_ENVIRONMENT = re.compile(
    rf"\s*(?:export\s+|SETUVAR\s+(?:--\w+\s+)*)?(?P<name>{_NAMES})(?:\s*=|:|\s+(?:DEFAULT|OVERRIDE)=){_EMPTY}"
)
_SYSTEM_FILES: dict[Kind, tuple[str, ...]] = {
    "environment": ("etc/environment", "etc/environment.d/*.conf", "etc/security/pam_env.conf"),
    "shell": (
        *("etc/profile", "etc/profile.d/*", "etc/bash.bashrc", "etc/zsh/*", "etc/csh.cshrc", "etc/csh.login"),
        *("etc/fish/config.fish", "etc/fish/conf.d/*.fish", "etc/skel/.*"),
    ),
}
_HOME_FILES: dict[Kind, tuple[str, ...]] = {
    "shell": (
        *(".profile", ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases"),
        *(".zshrc", ".zshenv", ".zprofile", ".zlogin", ".cshrc", ".tcshrc", ".login", ".kshrc"),
        *(".config/fish/config.fish", ".config/fish/conf.d/*.fish"),
    ),
    "environment": (
        *(".config/fish/fish_variables", ".config/environment.d/*.conf"),
        *(".ssh/environment", ".pam_environment"),
    ),
    "json": (".claude.json", ".claude/settings.json", ".claude/settings.local.json"),
    "login": (".claude/.credentials.json",),
}


@dataclass(frozen=True)
class Finding:
    """One credential: its place and its kind, never its value. `line` counts from 1; 0 means the whole file."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}" if self.line else f"{self.path}: {self.what}"


#: A file without its credentials; line and kind of each.
Cleaned = tuple[str, list[tuple[int, str]]]


def _cleaned(text: str, clean: Callable[[str, str], tuple[str, list[str]]]) -> Cleaned:
    """Clean each line with `clean`, which gets the line before it too, and take out literal keys."""
    lines: list[str] = []
    found = []
    before = ""
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        rest, names = clean(line, before)
        if KEY.search(rest):
            names.append("a key or token (sk-ant-…)")
        found += [(number, name) for name in names]
        lines.append(KEY.sub("", rest))
        before = line
    return "".join(lines), found


def clean_environment(text: str) -> Cleaned:
    """Return a file of NAME=value lines without the protected names and without literal keys."""

    def clean(line: str, _before: str) -> tuple[str, list[str]]:
        match = _ENVIRONMENT.match(line)
        return ("", [match["name"]]) if match else (line, [])

    return _cleaned(text, clean)


def clean_shell(text: str) -> Cleaned:
    """Return a shell start-up file without assignments of the protected names and without literal keys.

    Only the assignment is removed: the rest of the line stays, and a statement that becomes empty is replaced by `:`,
    so that a block around it stays valid.
    """

    def clean(line: str, before: str) -> tuple[str, list[str]]:
        names = []
        continued = before.rstrip("\r\n").endswith("\\")
        for pattern in () if line.lstrip().startswith("#") else (_SET, _ASSIGN):
            for match in reversed(list(pattern.finditer(line))):
                names.append(match["name"])
                line = _without(line, match.start(), match.end(), continued)
        return line, names

    return _cleaned(text, clean)


def _without(line: str, start: int, end: int, continued: bool) -> str:
    """Return `line` without [start:end]; `:` replaces it if that was the whole statement."""
    head, tail = line[:start], line[end:]
    rest = tail.lstrip(" \t")
    ends = not rest.strip() or rest[0] in ";&|)}#"
    command = _LONE_COMMAND.search(head)
    if command and ends:
        head, command = head[: command.start()], None
    opens = not head.strip() or head.rstrip()[-1] in ";&|({" or head.rstrip().endswith((" then", " do", " else"))
    if opens and ends and not (continued and not head.strip()):
        return f"{head}:{tail}"
    return head.rstrip(" \t") + tail if head.strip() and ends else head + rest


def clean_json(text: str) -> Cleaned:
    """Return a JSON settings file of the claude CLI without the protected names and members that contain a key."""
    try:
        tree = json.loads(text)
    except ValueError:
        return clean_environment(text) if KEY.search(text) else (text, [])
    names: list[str] = []
    pruned = _prune(tree, names)
    if not names:
        return text, []
    return json.dumps(pruned, indent=2, ensure_ascii=False) + "\n", [(0, name) for name in names]


def _prune(tree: Any, names: list[str]) -> Any:
    if isinstance(tree, dict):
        kept = {}
        for name, value in tree.items():
            if (name in PROTECTED and value) or KEY.search(name) or (isinstance(value, str) and KEY.search(value)):
                names.append(redact(name))
            else:
                kept[name] = _prune(value, names)
        return kept
    if isinstance(tree, list):
        bad = [item for item in tree if isinstance(item, str) and KEY.search(item)]
        names += ["a list entry"] * len(bad)
        return [_prune(item, names) for item in tree if item not in bad]
    return tree


def homes() -> list[Path]:
    """Return every account's existing home directory, without duplicates."""
    found = {Path(entry.pw_dir) for entry in pwd.getpwall()}
    return sorted(path for path in found if path.is_absolute() and path != Path("/") and path.is_dir())


def places(root: Path = Path("/"), accounts: Iterable[Path] | None = None) -> Iterator[tuple[Path, Kind]]:
    """Yield each regular file to check once, with links followed. `root` replaces / in tests.

    A link that leads out of its home to another owner's file is skipped, so that users cannot make root edit other
    files.
    """
    seen: set[Path] = set()
    bases = [(root, _SYSTEM_FILES), *((home, _HOME_FILES) for home in (homes() if accounts is None else accounts))]
    wanted = ((base, kind, pattern) for base, files in bases for kind in files for pattern in files[kind])
    for base, kind, pattern in wanted:
        for match in sorted(base.glob(pattern)):
            path = match.resolve()
            if path not in seen and path.is_file() and (base == root or not _leads_out(path, base)):
                seen.add(path)
                yield path, kind


def _leads_out(path: Path, home: Path) -> bool:
    return not path.is_relative_to(home.resolve()) and path.stat().st_uid != home.stat().st_uid


class Scrubber:
    """A cleaner of the files of `places`; `backups` is a directory that only root can enter."""

    def __init__(self, backups: Path, *, write: bool) -> None:
        self.backups = backups
        self.write = write
        self.findings: list[Finding] = []
        self.saved: list[str] = []

    def run(self, files: Iterable[tuple[Path, Kind]]) -> None:
        """Check each of `files`, and change it if `write` is set. Raise OSError, naming the file, if that fails."""
        for path, kind in files:
            if kind != "login":
                self._clean(path, kind)
                continue
            self.findings.append(Finding(str(path), 0, "a login of the claude CLI"))
            if self.write:
                self._save(path)
                path.unlink()

    def _clean(self, path: Path, kind: Kind) -> None:
        if path.stat().st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MAX_BYTES >> 20} MB, so it is not looked into", str(path))
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        clean = {"shell": clean_shell, "environment": clean_environment, "json": clean_json}[kind]
        cleaned, found = clean(text)
        self.findings += [Finding(str(path), line, what) for line, what in found]
        if found and self.write:
            self._save(path)
            replace(path, cleaned.encode("utf-8", "surrogateescape"))

    def _save(self, path: Path) -> None:
        """Copy the original to the backups, readable only by root from the start."""
        self.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(self.backups, 0o700)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = f"{str(path).strip('/').replace('/', '%')}.{stamp}."
        handle, target = tempfile.mkstemp(prefix=name, dir=self.backups)
        with open(handle, "wb") as out, path.open("rb") as source:
            shutil.copyfileobj(source, out)
        self.saved.append(target)
