"""Controller side of the module farmhand_key: fills in the operator's settings, and asks for the new key.

A key that is typed in goes to the module through a socket that only this user's processes can read, as a key source. It
is in no argument vector, no environment, no file, no log and no artifact.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# The checkout that holds this plugin holds the package, too: the two match, and nothing needs to be installed.
_SOURCE = Path(__file__).resolve().parent.parent / "src"
if (_SOURCE / "farmhand").is_dir() and str(_SOURCE) not in sys.path:
    sys.path.insert(0, str(_SOURCE))

from farmhand.core import settings  # noqa: E402  (found through the line above)
from farmhand.core.errors import FarmhandError, WireError  # noqa: E402
from farmhand.core.keys import check_format  # noqa: E402
from farmhand.places.local_server import KeyServer  # noqa: E402
from farmhand.rotation import operator  # noqa: E402
from farmhand.rotation.build import check_new_key_source, memory_of  # noqa: E402

PROMPT = "prompt"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Run the module on this machine with everything that it needs to know."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result; every failure before it is one line in `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if result.get("skipped"):
            return result
        try:
            if self._connection.transport != "local":
                raise WireError("usage", "farmhand_key runs on the workstation", "use connection: local")
            arguments = self._arguments()
            with contextlib.ExitStack() as stack:
                source = arguments.get("new_key_source")
                if source == PROMPT:
                    arguments["new_key_source"] = self._asked_for(arguments, stack)
                elif source:
                    check_new_key_source(str(source))
                answer: dict[str, Any] = self._execute_module(
                    module_name="farmhand_key", module_args=arguments, task_vars=task_vars
                )
            return result | answer
        except (WireError, FarmhandError) as error:
            what = {"code": error.code, "message": error.message, "hint": error.hint}
            return result | {"failed": True, "msg": str(error), "error": what}

    def _arguments(self) -> dict[str, Any]:
        """The task's arguments; what is not given is as the operator has set it."""
        given = {name: value for name, value in self._task.args.items() if value is not None}
        if {"key_source", "hosts", "upstream_url"} <= set(given):
            return given
        return operator.parameters(settings.load()) | given

    def _asked_for(self, arguments: dict[str, Any], stack: contextlib.ExitStack) -> str | None:
        """A source for the key that is typed in; None while a rotation goes on, which has its key already."""
        state = memory_of(arguments).load()
        if state is not None and state.unfinished:
            return None
        try:
            typed = Display().prompt_until("New API key (not shown): ", private=True)
        except AnsibleError:
            message = "there is no terminal to ask for the new key on"
            raise WireError(
                "usage", message, "name its source: -e rotate_new_key=file:PATH#NAME or command:ARGV"
            ) from None
        try:
            key = check_format(typed.decode("utf-8", "replace").strip())
        except ValueError as error:
            raise WireError("bad_key", str(error), "nothing was changed") from None
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farmhand-")))
        return stack.enter_context(KeyServer(key, directory)).source
