"""What is read and not run: the files that a session's environment comes from, the CLI's settings, and its login.

Sources: environment.d(5); the CLI's page "Settings", read 2026-11-24. Measured with CLI 2.1.330: its settings' `env`
overrides the process environment, even with an empty value; a file that is not JSON is ignored as a whole.
"""

from __future__ import annotations

import json
import plistlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from .names import HELPER, WATCHED
from .verdict import Location, Problem, Setting

MAX_BYTES = 4 << 20
_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=(.*)")
_PAM = re.compile(r"[ \t]*([A-Za-z_]\w*)[ \t]+(?:DEFAULT|OVERRIDE)=(\S*|\"[^\"]*\")")


#: The problems of a search, by file.
Problems = dict[Path, Problem]


def read(path: Path, problems: Problems) -> bytes:
    """Return a regular file's content; b"" if it does not exist or, recorded as a problem, cannot be read."""
    try:
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            return path.read_bytes()
        if path.is_file():
            problems[path] = Problem(path, 0, f"larger than {MAX_BYTES >> 20} MB, so it is not looked into")
    except OSError as error:
        problems[path] = Problem(path, 0, f"cannot be read: {error.strerror}")
    return b""


def lines_of(path: Path | None, problems: Problems | None = None) -> list[str]:
    """Return a file's lines, split at line feeds only, as shells count them; non-UTF-8 bytes are lone surrogates."""
    raw = read(path, {} if problems is None else problems) if path else b""
    return raw.decode("utf-8", "surrogateescape").split("\n")


def text_at(location: Location) -> str:
    """Return the line at a location; "" if there is none."""
    return "".join(lines_of(location.path)[location.line - 1 : location.line]) if location.line > 0 else ""


def _session_files(root: Path, home: Path) -> list[Path]:
    """Return the files of KEY=VALUE lines that PAM and systemd read, later ones winning."""
    by_name: dict[str, Path] = {}
    # A file in a later directory replaces one with the same name in an earlier one.
    for directory in (root / "usr/lib", root / "run", root / "etc", home / ".config"):
        by_name |= {path.name: path for path in (directory / "environment.d").glob("*.conf")}
    own = [root / "etc/environment", root / "etc/security/pam_env.conf", home / ".pam_environment"]
    return [*own, *(by_name[name] for name in sorted(by_name))]


def session(
    root: Path, home: Path, environ: Mapping[str, str], manager: Mapping[str, str], problems: Problems
) -> dict[str, Setting]:
    """Return the watched settings with which a new session's shell starts. `manager` is the service manager's."""
    found: dict[str, Setting] = {}
    for path in _session_files(root, home):
        for number, line in enumerate(lines_of(path, problems), 1):
            match = None if line.lstrip().startswith("#") else _PAM.match(line) or _LINE.match(line)
            if match and match[1] in WATCHED:
                found[match[1]] = Setting(match[1], match[2].strip().strip("\"'"), Location(path, number), "file")
    for via, given in (("manager", manager), ("environment", environ)):
        for name, text in given.items():
            # The same value as in a file came from that file.
            if name in WATCHED and (name not in found or found[name].text != text):
                found[name] = Setting(name, text, via=via)
    return found


def cli_files(root: Path, config: Path, project: Path | None, user: str) -> list[Path]:
    """Return the CLI's settings files, later ones winning: user, project, local, managed."""
    found = [config / "settings.json"]
    if project is not None:
        found += [project / ".claude/settings.json", project / ".claude/settings.local.json"]
    for managed in (root / "etc/claude-code", root / "Library/Application Support/ClaudeCode"):
        found += [managed / "managed-settings.json", *sorted((managed / "managed-settings.d").glob("*.json"))]
    managed = root / "Library/Managed Preferences"
    return [*found, managed / "com.anthropic.claudecode.plist", managed / user / "com.anthropic.claudecode.plist"]


def cli_settings(paths: list[Path], problems: Problems) -> list[Setting]:
    """Return the watched settings in these files, later ones winning. An unreadable file is recorded and ignored."""
    found = []
    for path in paths:
        tree, text = _tree(path, problems)
        env = tree.get("env")
        for name, value in (env if isinstance(env, dict) else {}).items():
            if name in WATCHED:
                found.append(Setting(name, str(value), _member(path, text, name), "settings"))
        helper = tree.get(HELPER)
        if isinstance(helper, str) and helper:
            found.append(Setting(HELPER, None, _member(path, text, HELPER), "settings", helper))
    return found


def _tree(path: Path, problems: Problems) -> tuple[dict[str, Any], str]:
    """Return a settings file's content, also as text, if it is text."""
    raw, text = read(path, problems), ""
    if path in problems or not path.is_file():
        return {}, ""
    try:
        if path.suffix == ".plist":
            tree = plistlib.loads(raw)
        else:
            text = raw.decode("utf-8-sig")
            tree = json.loads(text)
    except json.JSONDecodeError as error:
        problems[path] = Problem(path, error.lineno, f"not JSON: {error.msg}; the CLI ignores the whole file")
        return {}, ""
    except (ValueError, ExpatError):
        problems[path] = Problem(path, 0, "not readable settings; the CLI ignores the whole file")
        return {}, ""
    return (tree, text) if isinstance(tree, dict) else ({}, "")


def _member(path: Path, text: str, name: str) -> Location:
    """Return the location of the member `name`."""
    match = re.search(rf'"{re.escape(name)}"[ \t\r\n]*:', text)
    return Location(path, text.count("\n", 0, match.start()) + 1 if match else 0)


def logged_in(config: Path, home: Path) -> bool:
    """Return whether the CLI has a login. On macOS the token is in the keychain, so check .claude.json's account."""
    oauth = _json(config / ".credentials.json").get("claudeAiOauth")
    if isinstance(oauth, dict) and oauth.get("accessToken"):
        return True
    return (home / "Library/Keychains").is_dir() and bool(_json(home / ".claude.json").get("oauthAccount"))


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}
