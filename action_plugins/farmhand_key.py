"""Action plugin of farmhand_key: fills in the operator's settings, prompts for the new key, and runs the rotation step.

A typed key stays in this process: it is in no argument vector, no environment, no file, no log and no artifact.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# The checkout with this plugin also has the package: the versions match, and nothing needs to be installed.
_SOURCE = Path(__file__).resolve().parent.parent / "src"
if (_SOURCE / "farmhand").is_dir() and str(_SOURCE) not in sys.path:
    sys.path.insert(0, str(_SOURCE))

try:
    from farmhand.core import settings
    from farmhand.core.errors import FarmhandError, WireError
    from farmhand.core.keys import check_format
    from farmhand.core.keysource import read_key
    from farmhand.plugins.arguments import arguments
    from farmhand.plugins.key import apply
    from farmhand.rotation import build
    from farmhand.rotation.machine import Machine
    from farmhand.rotation.state import Memory
except ModuleNotFoundError as missing:
    raise AnsibleError(f"farmhand_key: {missing}") from None

PROMPT = "prompt"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Advance the rotation to the requested state, or predict the changes in check mode."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of plugins.key.apply; every failure is one line in `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        said: list[str] = []
        try:
            if self._connection.transport != "local":
                raise WireError("usage", "farmhand_key runs on the workstation", "use connection: local", 400)
            given = arguments(self, __file__)
            machine = _machine(given, said.append)
            new_key = None if given["state"] in ("status", "aborted") else self._new_key(machine, given)
            planned = given["planned"] or ""
            answer = apply(machine, given["state"], new_key, planned=planned, check=self._task.check_mode)
            return result | answer | {"progress": said}
        except FarmhandError as error:
            return result | {"failed": True, "msg": str(error), "error": error.as_dict()}

    def _new_key(self, machine: Machine, given: dict[str, Any]) -> str | None:
        """Return the new key from its source, or from the prompt; None if it is not needed. Raise WireError."""
        source = given["new_key_source"]
        if source != PROMPT:
            return read_key(build.check_new_key_source(source)) if source else None
        if machine.unfinished() is not None:  # it already has its key
            return None
        try:
            typed = Display().prompt_until("New API key (not shown): ", private=True)
        except AnsibleError:
            hint = "name its source: -e rotate_new_key=file:PATH#NAME or command:ARGV"
            raise WireError("usage", "there is no terminal to ask for the new key on", hint, 400) from None
        try:
            return check_format(typed.decode("utf-8", "replace").strip())
        except ValueError as error:
            raise WireError("bad_key", str(error), "nothing was changed") from None


def _machine(given: dict[str, Any], tell: Callable[[str], None]) -> Machine:
    """Return the machine of the arguments, with the operator's settings for those missing. Raise FarmhandError."""
    said = {name: value for name, value in given.items() if value is not None}
    complete = {"key_source", "hosts", "upstream_url"} <= set(said)
    conf = settings.Settings() if complete else settings.load(pot=said.get("pot"))
    conf = conf._replace(**{name: said[name] for name in conf._fields if name in said})
    entries = said.get("hosts")
    limit = conf.connect_timeout_s
    hosts = (
        build.known_hosts(conf) if entries is None else [build.given_host(entry, limit, conf.pot) for entry in entries]
    )
    return build.build(
        conf,
        hosts,
        tell=tell,
        memory=Memory(said["state_dir"]) if "state_dir" in said else None,
        **{name: given[name] for name in ("drain_s", "retire_s", "force")},
    )
