"""The sources of a session's environment before any shell starts: PAM's files, environment.d, systemd, launchd."""

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
#: Time limit for one answer of a manager, in seconds.
TIMEOUT_S = 5.0


def assignments(path: Path, reader: Reader) -> Iterator[tuple[str, Setting]]:
    """Yield the assignments in a file of KEY=VALUE lines, as PAM and systemd read them, without expansion."""
    for number, line in enumerate((reader.text(path) or "").split("\n"), start=1):
        match = None if line.lstrip().startswith("#") else _PAM.match(line) or _LINE.match(line)
        if match:
            value = match[2].strip().strip("\"'")
            yield match[1], Setting(match[1], value, Location(path, number), "file")


def files(root: Path, home: Path) -> list[Path]:
    """Return the files, in order of precedence: later ones win."""
    found = [root / "etc/environment", root / "etc/security/pam_env.conf", home / ".pam_environment"]
    by_name: dict[str, Path] = {}
    # A file in a later directory replaces one with the same name in an earlier one: environment.d(5).
    for directory in ("usr/lib/environment.d", "run/environment.d", "etc/environment.d"):
        by_name |= {path.name: path for path in (root / directory).glob("*.conf")}
    by_name |= {path.name: path for path in (home / ".config/environment.d").glob("*.conf")}
    return [*found, *(by_name[name] for name in sorted(by_name))]


def session(
    root: Path, home: Path, environ: Mapping[str, str], manager: Mapping[str, str], reader: Reader
) -> dict[str, Setting]:
    """Return the watched settings of a new session's shell; `manager` is the result of `of_manager`."""
    found: dict[str, Setting] = {}
    for path in files(root, home):
        found |= {name: value for name, value in assignments(path, reader) if name in WATCHED}
    for name, text in manager.items():
        if name not in found or found[name].text != text:
            found[name] = Setting(name, text, via="manager")
    for name, text in environ.items():
        # The same value as in a file came from that file.
        if name in WATCHED and (name not in found or found[name].text != text):
            found[name] = Setting(name, text)
    return found


def of_manager(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the watched names in the environment that systemd's user manager or launchd passes on.

    Return {} if there is no such manager. Raises CannotAsk if it does not answer.
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
