"""Action plugin of farmhand_drain: waits in short rounds, says what is left, brings the key to what awaits one.

So the operator sees a long drain go on, and no connection is held open for an hour.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# The checkout that holds this plugin holds the package, too: the two match, and nothing needs to be installed.
_SOURCE = Path(__file__).resolve().parent.parent / "src"
if (_SOURCE / "farmhand").is_dir() and str(_SOURCE) not in sys.path:
    sys.path.insert(0, str(_SOURCE))

from farmhand.core.errors import FarmhandError  # noqa: E402  (found through the line above)
from farmhand.plugins import handover  # noqa: E402

#: How long one round on the host waits, in seconds.
_ROUND_S = 5.0
_LOOK_S = 0.001
_display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Run the module until the host is empty, it cannot be emptied, or the time is over."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's last result, with the diff and `changed` of the first."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if result.get("skipped"):
            return result
        handover.check_host_keys(self._connection)
        arguments = dict(self._task.args)
        try:
            wait_s = float(arguments.get("wait_s") or 0)
        except (TypeError, ValueError):
            return result | self._module(arguments, task_vars)  # which says what is wrong with it
        if self._task.check_mode or wait_s <= 0:
            return result | self._module(arguments, task_vars)
        return result | self._wait(arguments, wait_s, task_vars)

    def _wait(self, arguments: dict[str, Any], wait_s: float, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Round after round until the end; the first round's change is the change of all."""
        host = str((task_vars or {}).get("inventory_hostname", "this host"))
        started = time.monotonic()
        first: dict[str, Any] = {}
        said, key_brought = "", False
        while True:
            waited = time.monotonic() - started
            # The first round only looks, so that the operator sees at once what there is to wait for.
            arguments["wait_s"] = max(_LOOK_S, min(_ROUND_S, wait_s - waited)) if first else _LOOK_S
            answer = self._module(arguments, task_vars)
            first = first or {name: answer[name] for name in ("changed", "before", "diff") if name in answer}
            answer |= first
            if (answer.get("error") or {}).get("code") != "not_empty":
                return answer
            waited = time.monotonic() - started
            if answer["stuck"] and not key_brought and waited < wait_s:
                key_brought = True
                problem = self._bring_key(arguments, host)
                if problem:
                    return answer | {"msg": f"{answer['msg']} ({problem})"}
                continue
            left = ", ".join(f"{count} {name}" for name, count in answer["left"].items() if count)
            if left != said:
                _display.display(f"  {host}: {left}; {waited:.0f} of {wait_s:g} s")
            said = left
            if answer["stuck"]:
                return answer
            if waited >= wait_s:
                # The module knows of the last round's time only.
                what = answer["msg"].rpartition(" after ")[0]
                return answer | {"msg": f"{what} after {wait_s:g} s"}

    def _bring_key(self, arguments: dict[str, Any], host: str) -> str:
        """Hand over the operator's key; why that failed, if it did."""
        try:
            source, socket = (str(arguments.get(name) or "") for name in ("key_source", "socket"))
            handover.hand_over(self._low_level_execute_command, handover.operators_key(source), host, socket)
        except FarmhandError as error:
            return str(error)
        return ""

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="farmhand_drain", module_args=arguments, task_vars=task_vars
        )
        return answer
