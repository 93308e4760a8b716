"""A daily run of `farmhand doctor`: a systemd user timer, or a launchd agent on macOS."""

from __future__ import annotations

import os
import plistlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from farmhand.core.errors import NotConfigured
from farmhand.core.files import xdg

NAME = "farmhand-doctor"
LABEL = "farmhand.doctor"
_ON_CALENDAR = "*-*-* 09:00:00"


def install(command: Sequence[str], environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> str:
    """Write the files that run `command` daily at nine, and return the shell command that switches them on.

    The first word of `command` is an absolute path. Unchanged files are not rewritten. Raises NotConfigured if they
    cannot be written.
    """
    home = Path("~").expanduser()
    if platform == "darwin":
        path = home / "Library/LaunchAgents" / f"{LABEL}.plist"
        _write({path: plist(command, environ)})
        return f"launchctl bootstrap gui/$(id -u) {path}"
    directory = Path(xdg("XDG_CONFIG_HOME", environ)) / "systemd/user"
    _write({directory / f"{NAME}.service": service(command, environ), directory / f"{NAME}.timer": timer()})
    return f"systemctl --user daemon-reload && systemctl --user enable --now {NAME}.timer"


def service(command: Sequence[str], environ: Mapping[str, str]) -> bytes:
    """Return the unit that runs the checks once. Exit status 1 (a red check) counts as success of the unit."""
    words = " ".join(map(_quoted, command))
    path = _quoted(f"PATH={environ.get('PATH', os.defpath)}")
    return (
        "[Unit]\nDescription=farmhand doctor: is the farm green?\n\n"
        f"[Service]\nType=oneshot\nEnvironment={path}\nExecStart={words}\nSuccessExitStatus=1\nTimeoutStartSec=15min\n"
    ).encode()


def timer() -> bytes:
    """Return the unit that starts the service daily, or later if the machine was off."""
    return (
        "[Unit]\nDescription=farmhand doctor, daily\n\n"
        f"[Timer]\nOnCalendar={_ON_CALENDAR}\nRandomizedDelaySec=10min\nPersistent=true\n\n"
        "[Install]\nWantedBy=timers.target\n"
    ).encode()


def plist(command: Sequence[str], environ: Mapping[str, str]) -> bytes:
    """Return the launchd agent."""
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": list(command),
            "EnvironmentVariables": {"PATH": environ.get("PATH", os.defpath)},
            "StartCalendarInterval": {"Hour": 9, "Minute": 0},
            "ProcessType": "Background",
        }
    )


def _quoted(word: str) -> str:
    """Quote one word for systemd: escape quotes and backslashes, and prevent specifier and variable expansion."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def _write(files: Mapping[Path, bytes]) -> None:
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != text:
                # Readable by its owner only: the options may contain the URL of a webhook.
                path.touch(mode=0o600)
                path.write_bytes(text)
    except OSError as error:
        raise NotConfigured(f"the timer cannot be written: {error}") from None
