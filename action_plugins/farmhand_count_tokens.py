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
    from farmhand.core.errors import FarmhandError
    from farmhand.core.keys import own_key
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
        try:
            given = arguments(self, __file__)
            agent = handover.agent_of(self, given["socket"], task_vars)
            read_files(given, self._find_needle)
            task = task_of(given)
            conf = handover.operators_settings(given["key_source"], task)
            key = handover.key_for_task(task, conf, task_vars)
            [counted] = agent.count([task], own_key(key, conf.pot))
        except FarmhandError as error:
            return result | {"failed": True, "msg": str(error), "error": error.as_dict()}
        return result | {"changed": False, "input_tokens": counted["input_tokens"], "model": counted["model"]}
