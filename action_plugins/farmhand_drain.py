"""Action plugin of farmhand_drain: reports the remaining tasks while it waits, and sends the key if they need it.

It polls the host's agent, so that no connection is held open for an hour. Nothing else runs on the host.
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
    from farmhand.core.errors import FarmhandError
    from farmhand.core.keys import Credential
    from farmhand.plugins import drain, handover
    from farmhand.plugins.arguments import arguments
except ModuleNotFoundError as missing:
    raise AnsibleError(f"farmhand_drain: {missing}") from None

_display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Drain the host, or predict the changes in check mode."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of drain.drain, with a diff; every failure is one line in `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = arguments(self, __file__)
        try:
            agent = handover.agent_of(self, given["socket"], task_vars)
            answer = drain.drain(
                agent,
                given["mode"],
                given["wait_s"],
                check=self._task.check_mode,
                say=lambda text: _display.display(f"  {agent.host}: {text}"),
                bring_key=lambda: agent.put_key(_key(given["key_source"], task_vars)),
            )
        except FarmhandError as error:
            return result | {"failed": True, "msg": str(error), "error": error.as_dict()}
        problem = None if self._task.check_mode else drain.failure(answer, given["wait_s"])
        if problem is not None:
            answer |= {"failed": True, "msg": problem}
            answer["error"] = {"code": "not_empty", "message": problem, "hint": ""}
        return result | answer


def _key(source: str | None, task_vars: dict[str, Any] | None) -> Credential:
    return handover.operators_key(handover.operators_settings(source), task_vars, every=True)
