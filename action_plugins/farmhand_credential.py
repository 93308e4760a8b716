"""Action plugin of farmhand_credential: fills in the operator's settings, and brings the credential to AWS from here.

A credential stays in this process until AWS has it: it is in no argument vector, environment, log or artifact.
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
    from farmhand.core import settings
    from farmhand.core.errors import FarmhandError, WireError
    from farmhand.plugins import credential
    from farmhand.plugins.arguments import arguments
except ModuleNotFoundError as missing:
    raise AnsibleError(f"farmhand_credential: {missing}") from None


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Bring the credential to the wanted state, or predict the changes in check mode."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of plugins.credential.apply; every failure is one line in `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            if self._connection.transport != "local":
                raise WireError("usage", "farmhand_credential runs on the workstation", "use connection: local", 400)
            given = arguments(self, __file__)
            conf = settings.load()
            set_here = {name: given[name] for name in conf._fields if given.get(name) is not None}
            return result | credential.apply(conf._replace(**set_here), given, check=self._task.check_mode)
        except FarmhandError as error:
            return result | {"failed": True, "msg": str(error), "error": error.as_dict()}
