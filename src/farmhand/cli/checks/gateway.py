"""The checks of the operator's gateway: that it listens, who can read its secrets, and what its backends say."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from farmhand.cli.checks import Check, failed, passed
from farmhand.core.errors import FarmhandError, FarmUnreachable
from farmhand.core.keysource import read_private
from farmhand.core.readable import counted
from farmhand.gateway import config, control
from farmhand.gateway.guard import read_token
from farmhand.gateway.tables import GatewayConfig

NAMES = ("gateway", "gateway-token", "gateway-backends")
#: What `playbooks/gateway.yml` writes, and how what it wrote is started.
_SERVICES = {
    ".config/systemd/user/farmhand-gateway.service": "systemctl --user start farmhand-gateway, "
    "or see journalctl --user -u farmhand-gateway",
    "Library/LaunchAgents/farmhand.gateway.plist": "launchctl kickstart gui/$UID/farmhand.gateway, "
    "or see ~/Library/Logs/farmhand-gateway.log",
}
#: Why a backend takes no turns if nothing is wrong: it is switched off, or opened for a time only.
_AS_WANTED = ("off", "shut")
_NONE = "none is set up on this machine"


def checks() -> list[tuple[str, Callable[[], Check]]]:
    """Return the checks with their names. They ask the gateway once."""
    looks = _Gateway()
    return list(zip(NAMES, (looks.listening, looks.secrets, looks.backends), strict=True))


class _Gateway:
    """The gateway of this user. It counts as set up if there is anything of it: settings, a token or a service."""

    def __init__(self) -> None:
        self._path = config.default_path()
        self._start = next((start for name, start in _SERVICES.items() if (Path.home() / name).exists()), "")
        self._config: Callable[[], GatewayConfig] = cache(lambda: config.load(self._path))
        self._status: Callable[[], dict[str, Any]] = cache(
            lambda: control.ask(self._config(), "GET", "/farmhand/v1/status")
        )

    @property
    def _set_up(self) -> bool:
        return bool(self._start) or self._path.exists() or os.path.lexists(self._config().token_path)

    def listening(self) -> Check:
        """Check that it answers as ours, with our token."""
        if not self._set_up:
            return passed(_NONE)
        try:
            found = self._status()
        except FarmUnreachable as error:
            return failed(error.message, self._start or error.hint or "farmhand gateway serve")
        return passed(f"{found['version']} on {found['listen']}, {counted(found['open_turns'], 'turn')} open")

    def secrets(self) -> Check:
        """Check that only its owner can read its token, and the file with its backends' keys."""
        if not self._set_up:
            return passed(_NONE)
        read_token(self._config().token_path)
        environment = self._path.with_name("gateway.env")
        if os.path.lexists(environment):
            read_private(str(environment))
            return passed(f"{self._config().token_path} and {environment.name} are yours alone")
        return passed(f"{self._config().token_path} is yours alone")

    def backends(self) -> Check:
        """Check that each local server runs and says its context, and that what is switched on takes turns."""
        if not self._set_up:
            return passed(_NONE)
        try:
            states = self._status()["states"]
        except FarmhandError:
            return Check(state="left_out", detail="not asked, see the line gateway")
        said: list[str] = []
        wrong: list[str] = []
        for state in states:
            closed, context = state["closed"], state["context"]
            if closed is not None:
                (said if closed["code"] in _AS_WANTED else wrong).append(f"{state['name']}: {closed['words']}")
            elif state["residency"] == "local" and not context:
                wrong.append(f"{state['name']} ({state['model']}): its context is not known, so nothing is too long")
            else:
                said.append(f"{state['name']} {state['model']}, {context:,} tokens" if context else state["name"])
        if wrong:
            fix = "start the server, or set context in gateway.toml; farmhand gateway status shows all"
            return failed("; ".join(wrong), fix)
        return passed("; ".join(said))
