"""Action plugin of farmhand_count_tokens: has the provider count a task's tokens, through the host's agent.

The key is sent to the agent as farmhand_task sends it. Nothing is run, charged or kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

# The checkout with this plugin also has the package: the versions match, and nothing needs to be installed.
_SOURCE = Path(__file__).resolve().parent.parent / "src"
if (_SOURCE / "farmhand").is_dir() and str(_SOURCE) not in sys.path:
    sys.path.insert(0, str(_SOURCE))

try:
    from farmhand.core.errors import FarmhandError, WireError
    from farmhand.core.keys import holds_key, own_key
    from farmhand.plugins import handover
    from farmhand.plugins.arguments import arguments
    from farmhand.plugins.task import read_files, task_of
except ModuleNotFoundError as missing:
    raise AnsibleError(f"farmhand_count_tokens: {missing}") from None


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Count the tokens of one task, in check mode too."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `input_tokens` and `model`; every failure is one line in `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if result.get("skipped"):
            return result
        host = str((task_vars or {}).get("inventory_hostname", "this host"))
        try:
            handover.check_connection(self._connection)
            given = arguments(self, __file__)
            agent = handover.HostAgent(self._low_level_execute_command, host, given["socket"])
            read_files(given, self._find_needle)
            task = task_of(given)
            conf = handover.operators_settings(given["key_source"], task.get("pot"))
            task |= {"pot": conf.pot} if conf.pot else {}
            key = own_key(handover.operators_key(conf, task_vars), conf.pot)
            if holds_key(task, key):
                raise WireError("key_in_task", "the API key itself stands in the task", "take it out", 400)
            [counted] = agent.count([task], key)
        except FarmhandError as error:
            return result | {"failed": True, "msg": str(error), "error": error.as_dict()}
        return result | {"changed": False, "input_tokens": counted["input_tokens"], "model": counted["model"]}
