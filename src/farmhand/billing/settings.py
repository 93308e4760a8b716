"""The CLI's settings files: the variables they add to its environment, and the helper that prints a key.

Source: the CLI's page "Settings", read 2026-11-24. Measured with CLI 2.1.330: `env` overrides the process environment,
even with an empty value; a file that is not JSON is ignored as a whole.
"""

from __future__ import annotations

import json
import plistlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .names import HELPER, WATCHED
from .reading import Problem, Reader
from .verdict import Location, Setting

_MEMBER = r'"{}"[ \t\r\n]*:'


@dataclass
class ClaudeSettings:
    """The combined settings of all files. `all` has every setting found, even if overridden."""

    env: dict[str, Setting] = field(default_factory=dict)
    helper: Setting | None = None
    all: list[Setting] = field(default_factory=list)


def files(root: Path, config: Path, project: Path | None, user: str) -> list[Path]:
    """Return the settings files in order of precedence, later ones winning: user, project, local, managed."""
    found = [config / "settings.json"]
    if project is not None:
        found += [project / ".claude/settings.json", project / ".claude/settings.local.json"]
    for managed in (root / "etc/claude-code", root / "Library/Application Support/ClaudeCode"):
        found += [managed / "managed-settings.json", *sorted((managed / "managed-settings.d").glob("*.json"))]
    managed = root / "Library/Managed Preferences"
    return [*found, managed / "com.anthropic.claudecode.plist", managed / user / "com.anthropic.claudecode.plist"]


def read(paths: list[Path], reader: Reader) -> ClaudeSettings:
    """Return the settings in force. An unreadable file is recorded and ignored, as the CLI does."""
    settings = ClaudeSettings()
    for path in paths:
        tree, text = _tree(path, reader)
        env = tree.get("env")
        for name, value in (env if isinstance(env, dict) else {}).items():
            if name in WATCHED:
                found = Setting(name, str(value), Location(path, line_of(text, name)), "settings")
                settings.env[name] = found
                settings.all.append(found)
        helper = tree.get(HELPER)
        if isinstance(helper, str) and helper:
            settings.helper = Setting(HELPER, None, Location(path, line_of(text, HELPER)), "settings", helper)
            settings.all.append(settings.helper)
    return settings


def _tree(path: Path, reader: Reader) -> tuple[dict[str, Any], str]:
    raw = reader.read(path)
    if raw is None:
        return {}, ""
    try:
        if path.suffix == ".plist":
            tree, text = plistlib.loads(raw), ""
        else:
            text = raw.decode("utf-8-sig")
            tree = json.loads(text)
    except json.JSONDecodeError as error:
        reader.problems[path] = Problem(path, error.lineno, f"not JSON: {error.msg}; the CLI ignores the whole file")
        return {}, ""
    except (ValueError, plistlib.InvalidFileException):
        reader.problems[path] = Problem(path, 0, "not readable settings; the CLI ignores the whole file")
        return {}, ""
    return (tree, text) if isinstance(tree, dict) else ({}, "")


def line_of(text: str, name: str) -> int:
    """Return the line of the member `name`; 0 if unknown."""
    match = re.search(_MEMBER.format(re.escape(name)), text)
    return text.count("\n", 0, match.start()) + 1 if match else 0


def logged_in(config: Path, home: Path) -> bool:
    """Return whether the CLI has a login. On macOS the token is in the keychain, so check .claude.json's account."""
    try:
        tree = json.loads((config / ".credentials.json").read_bytes())
        if isinstance(tree, dict) and (tree.get("claudeAiOauth") or {}).get("accessToken"):
            return True
    except (OSError, ValueError, AttributeError):
        pass
    if not (home / "Library/Keychains").is_dir():
        return False
    try:
        tree = json.loads((home / ".claude.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and bool(tree.get("oauthAccount"))
