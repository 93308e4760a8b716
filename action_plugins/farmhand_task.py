"""Action plugin of farmhand_task: brings the API key to the host's agent, then runs the module, which never sees it.

The key goes into the stdin of `jada-agent bridge` on the host, through the connection as it is (ssh, local, docker;
with or without become). So it is in no argument vector, no environment, no file, no log and no artifact.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

# The checkout that holds this plugin holds the package, too: the two match, and nothing needs to be installed.
_SOURCE = Path(__file__).resolve().parent.parent / "src"
if (_SOURCE / "farmhand").is_dir() and str(_SOURCE) not in sys.path:
    sys.path.insert(0, str(_SOURCE))

from farmhand.dispatch import handover  # noqa: E402  (found through the line above)
from farmhand.errors import FarmhandError  # noqa: E402
from farmhand.wire.errors import WireError  # noqa: E402
from farmhand.wire.ids import new_task_id  # noqa: E402
from farmhand.wire.keys import holds_key  # noqa: E402

#: An agent may restart between the hand-over and the task; more often than this something is wrong.
_HANDOVERS = 3


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Hand over the key, run the module; again if the agent restarted in between."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result; every failure before it is one line in `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if result.get("skipped"):
            return result
        try:
            arguments = self._arguments()
            if self._task.check_mode:
                return result | self._module(arguments, task_vars)
            source = arguments.pop("key_source", None)
            key = handover.operators_key(str(source or ""))
            if holds_key(arguments, key):
                raise WireError("key_in_task", "the API key itself stands in the task", "take it out")
            host = str((task_vars or {}).get("inventory_hostname", "this host"))
            answer: dict[str, Any] = {}
            for _ in range(_HANDOVERS):
                handover.hand_over(self._low_level_execute_command, key, host, str(arguments.get("socket") or ""))
                answer = self._module(arguments, task_vars)
                if answer.get("state") != "awaiting_key":
                    break
            return result | answer
        except (WireError, FarmhandError) as error:
            what = {"code": error.code, "message": error.message, "hint": error.hint}
            return result | {"failed": True, "msg": str(error), "error": what}

    def _arguments(self) -> dict[str, Any]:
        """The module's arguments: with an id, so that a second try is the same task, and the prompt from its file."""
        arguments = dict(self._task.args)
        arguments["id"] = str(arguments.get("id") or new_task_id())
        name = arguments.pop("prompt_file", None)
        if name is not None:
            if arguments.get("prompt") is not None:
                raise WireError("usage", "prompt and prompt_file exclude each other", "give one of them")
            arguments["prompt"] = self._prompt(str(name))
        return arguments

    def _prompt(self, name: str) -> str:
        try:
            path = self._find_needle("files", str(Path(name).expanduser()))
            return Path(path).read_bytes().decode("utf-8")
        except AnsibleError:
            raise WireError("invalid_file", f"prompt_file {name} is not on the controller") from None
        except OSError as error:
            raise WireError("invalid_file", f"prompt_file {name}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise WireError("invalid_prompt", f"prompt_file {name} is not valid UTF-8 at byte {error.start}") from None

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="farmhand_task", module_args=arguments, task_vars=task_vars
        )
        return answer
