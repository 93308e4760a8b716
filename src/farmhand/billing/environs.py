"""Where a session's environment comes from before any shell starts: PAM's files, environment.d, systemd, launchd."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .ask import CannotAsk
from .names import WATCHED
from .reading import Reader
from .verdict import Location, Setting

_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=(.*)")
_PAM = re.compile(r"[ \t]*([A-Za-z_]\w*)[ \t]+(?:DEFAULT|OVERRIDE)=(\S*|\"[^\"]*\")")
#: How long a manager may take for one answer. Seconds.
TIMEOUT_S = 5.0


def assignments(path: Path, reader: Reader) -> Iterator[tuple[str, Setting]]:
    """The assignments of a file of KEY=VALUE lines, as PAM and systemd read it: never expanded."""
    for number, line in enumerate((reader.text(path) or "").split("\n"), start=1):
        match = None if line.lstrip().startswith("#") else _PAM.match(line) or _LINE.match(line)
        if match:
            value = match[2].strip().strip("\"'")
            yield match[1], Setting(match[1], value, Location(path, number), "file")


def files(root: Path, home: Path) -> list[Path]:
    """The files, in the order in which later ones win."""
    found = [root / "etc/environment", root / "etc/security/pam_env.conf", home / ".pam_environment"]
    by_name: dict[str, Path] = {}
    # The same name in a later directory takes the earlier one's place: environment.d(5).
    for directory in ("usr/lib/environment.d", "run/environment.d", "etc/environment.d"):
        by_name |= {path.name: path for path in (root / directory).glob("*.conf")}
    by_name |= {path.name: path for path in (home / ".config/environment.d").glob("*.conf")}
    return [*found, *(by_name[name] for name in sorted(by_name))]


def session(
    root: Path, home: Path, environ: Mapping[str, str], manager: Mapping[str, str], reader: Reader
) -> dict[str, Setting]:
    """What a shell of a new session starts with; `manager` is what `of_manager` has told."""
    found: dict[str, Setting] = {}
    for path in files(root, home):
        found |= {name: value for name, value in assignments(path, reader) if name in WATCHED}
    for name, text in manager.items():
        if name not in found or found[name].text != text:
            found[name] = Setting(name, text, via="manager")
    for name, text in environ.items():
        # The same value as in a file: it came from there.
        if name in WATCHED and (name not in found or found[name].text != text):
            found[name] = Setting(name, text)
    return found


def of_manager(environ: Mapping[str, str]) -> dict[str, str]:
    """The watched names in the environment that systemd's user manager or launchd gives to what it starts.

    None of them where there is no such manager. Raises CannotAsk where it gives no answer.
    """
    if sys.platform == "darwin":
        asked = {name: _output(["launchctl", "getenv", name], environ).strip() for name in WATCHED}
        return {name: text for name, text in asked.items() if text}
    found = {}
    if "XDG_RUNTIME_DIR" in environ:
        for line in _output(["systemctl", "--user", "show-environment"], environ).splitlines():
            name, equals, text = line.partition("=")
            if equals and name in WATCHED:
                found[name] = text.removeprefix("$'").strip("'\"")
    return found


def _output(argv: list[str], environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(argv, env=dict(environ), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""
    except subprocess.TimeoutExpired:
        raise CannotAsk(f"{shlex.join(argv)} gave no answer within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise CannotAsk(f"{shlex.join(argv)} could not be started: {error.strerror}") from None
    return done.stdout if done.returncode == 0 else ""
