"""Files that run `farmhand doctor` every day: a systemd user timer, or a launchd agent on macOS."""

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
    """Write the files that run `command` (its first word an absolute path) daily at nine; how to switch it on.

    The same files again are left as they are. Raises NotConfigured where they cannot be written.
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
    """The unit that runs the checks once. Red is an answer, so exit status 1 is no failure of the unit."""
    words = " ".join(map(_quoted, command))
    path = _quoted(f"PATH={environ.get('PATH', os.defpath)}")
    return (
        "[Unit]\nDescription=farmhand doctor: is the farm green?\n\n"
        f"[Service]\nType=oneshot\nEnvironment={path}\nExecStart={words}\nSuccessExitStatus=1\nTimeoutStartSec=15min\n"
    ).encode()


def timer() -> bytes:
    """The unit that starts it daily, later if the machine was off."""
    return (
        "[Unit]\nDescription=farmhand doctor, daily\n\n"
        f"[Timer]\nOnCalendar={_ON_CALENDAR}\nRandomizedDelaySec=10min\nPersistent=true\n\n"
        "[Install]\nWantedBy=timers.target\n"
    ).encode()


def plist(command: Sequence[str], environ: Mapping[str, str]) -> bytes:
    """The same for launchd."""
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
    """One word for systemd: quotes and backslashes escaped, no specifier and no variable expanded."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def _write(files: Mapping[Path, bytes]) -> None:
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != text:
                # Its options may hold the URL of a webhook.
                path.touch(mode=0o600)
                path.write_bytes(text)
    except OSError as error:
        raise NotConfigured(f"the timer cannot be written: {error}") from None
