"""Action plugin of farmhand_key: fills in the operator's settings, prompts for the new key, and runs the rotation step.

A typed key stays in this process: it is in no argument vector, no environment, no file, no log and no artifact.
"""

from __future__ import annotations

import sys
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
    from farmhand.plugins.key import ARGUMENTS, apply
    from farmhand.rotation import operator
    from farmhand.rotation.build import check_new_key_source, memory_of
except ModuleNotFoundError as missing:
    raise AnsibleError(f"farmhand_key: {missing}") from None

PROMPT = "prompt"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Advance the rotation to the requested state, or predict the changes in check mode."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of plugins.key.apply; every failure is one line in `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            if self._connection.transport != "local":
                raise WireError("usage", "farmhand_key runs on the workstation", "use connection: local", 400)
            _, given = self.validate_argument_spec(ARGUMENTS)
            parameters = _complete(given)
            new_key = None if given["state"] in ("status", "aborted") else self._new_key(parameters)
            return result | apply(parameters, new_key, check=self._task.check_mode)
        except FarmhandError as error:
            return result | {"failed": True, "msg": str(error), "error": error.as_dict()}

    def _new_key(self, parameters: dict[str, Any]) -> str | None:
        """Return the new key from its source, or from the prompt; None if it is not needed. Raise WireError."""
        source = parameters["new_key_source"]
        if source != PROMPT:
            return read_key(check_new_key_source(source)) if source else None
        state = memory_of(parameters).load()
        if state is not None and state.unfinished:  # it already has its key
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


def _complete(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments, with the operator's settings for those that are missing. Raise FarmhandError."""
    said = {name: value for name, value in given.items() if value is not None}
    rest = {} if {"key_source", "hosts", "upstream_url"} <= set(said) else operator.parameters(settings.load())
    return given | rest | said
