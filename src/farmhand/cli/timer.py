"""A daily run of a command: systemd user units, a launchd agent on macOS, or a line for cron."""

from __future__ import annotations

import os
import plistlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from farmhand.core.errors import NotConfigured
from farmhand.core.files import replace, xdg
from farmhand.core.settings import PREFIX, Settings

#: The forms of `Daily.text`.
KINDS = ("cron", "launchd", "systemd")
_SERVICE = """[Unit]
Description=farmhand {about}

[Service]
Type=oneshot
{environment}WorkingDirectory={directory}
ExecStart={command}
{success}TimeoutStartSec=15min
"""
_TIMER = """[Unit]
Description=farmhand {about}, daily

[Timer]
OnCalendar=*-*-* 09:00:00
RandomizedDelaySec=10min
Persistent=true

[Install]
WantedBy=timers.target
"""


@dataclass(frozen=True, kw_only=True)
class Daily:
    """What runs at nine: `name` is that of the units, `about` what they say of it.

    The first word of `command` is an absolute path. `success` is an exit status that is no failure of the unit.
    """

    name: str
    about: str
    command: Sequence[str]
    success: int | None = None

    def install(self, environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> str:
        """Write the files and return the shell command that switches them on.

        Unchanged files are not rewritten. Raises NotConfigured if they cannot be written.
        """
        if platform == "darwin":
            agent = Path(os.path.expanduser(f"~/Library/LaunchAgents/farmhand.{self.name}.plist"))
            _write(agent, self._agent(environ))
            return f"launchctl bootstrap gui/$(id -u) {agent}"
        directory = Path(xdg("XDG_CONFIG_HOME", environ)) / "systemd/user"
        for name, text in self._units(environ).items():
            _write(directory / name, text.encode())
        return self._switch_on()

    def text(self, kind: str, environ: Mapping[str, str] = os.environ) -> str:
        """Return the lines of one of KINDS, for the operator's own files. cron mails what is printed on a failure."""
        if kind == "cron":
            words = [f"{name}={shlex.quote(value)}" for name, value in _kept(environ).items() if name != "PATH"]
            before = shlex.join(["cd", os.getcwd()]) + (f" && export {' '.join(words)}" if words else "")
            command = shlex.join(self.command)
            return f"0 9 * * * {before} && {{ {command} >/dev/null || {command}; }}".replace("%", r"\%")
        if kind == "launchd":
            return self._agent(environ).decode()
        files = [f"# ~/.config/systemd/user/{name}\n{text}" for name, text in self._units(environ).items()]
        return "\n".join([*files, f"# {self._switch_on()}\n"])

    def _units(self, environ: Mapping[str, str]) -> dict[str, str]:
        service = _SERVICE.format(
            about=self.about,
            environment="".join(f"Environment={_quoted(f'{n}={v}')}\n" for n, v in _kept(environ).items()),
            directory=os.getcwd().replace("%", "%%"),
            command=" ".join(map(_quoted, self.command)),
            success="" if self.success is None else f"SuccessExitStatus={self.success}\n",
        )
        timer = _TIMER.format(about=self.about)
        return {f"farmhand-{self.name}.service": service, f"farmhand-{self.name}.timer": timer}

    def _agent(self, environ: Mapping[str, str]) -> bytes:
        document = {
            "Label": f"farmhand.{self.name}",
            "ProgramArguments": list(self.command),
            "EnvironmentVariables": _kept(environ),
            "WorkingDirectory": os.getcwd(),
            "StartCalendarInterval": {"Hour": 9, "Minute": 0},
            "ProcessType": "Background",
        }
        return plistlib.dumps(document)

    def _switch_on(self) -> str:
        return f"systemctl --user daemon-reload && systemctl --user enable --now farmhand-{self.name}.timer"


def _kept(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of this session's environment the command needs: PATH, where settings are, and what sets them.

    No setting is a secret. Relative paths hold, as the command runs in the directory of this one.
    """
    names = [*(PREFIX + name.upper() for name in ("config", *Settings._fields)), "XDG_CONFIG_HOME", "XDG_STATE_HOME"]
    return {"PATH": environ.get("PATH", os.defpath)} | {name: environ[name] for name in names if environ.get(name)}


def _quoted(word: str) -> str:
    """Quote one word for systemd: escape quotes and backslashes, and prevent specifier and variable expansion."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def _write(path: Path, content: bytes) -> None:
    try:
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Readable by its owner only: the options may contain the URL of a webhook.
            replace(path, content, mode=0o600)
    except OSError as error:
        raise NotConfigured(f"the timer cannot be written: {error}") from None
