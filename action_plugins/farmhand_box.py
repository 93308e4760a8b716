"""Action plugin of farmhand_box: fills in the operator's settings, and makes or removes the box from here."""

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
    from farmhand.core import ansible_error, settings
    from farmhand.core.errors import FarmhandError, WireError
    from farmhand.plugins import box
    from farmhand.plugins.arguments import arguments
except ModuleNotFoundError as missing:
    raise AnsibleError(f"farmhand_box: {missing}") from None


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Make or remove the box, or predict that in check mode."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of plugins.box.apply; every failure is one line in `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            if self._connection.transport != "local":
                raise WireError("usage", "farmhand_box runs on the workstation", "use connection: local", 400)
            given = arguments(self, __file__)
            conf = settings.load()
            set_here = {name: given[name] for name in ("aws_environment", "aws_profile") if given[name]}
            names = ((task_vars or {}).get("groups") or {}).get("all", ())
            check, tell = self._task.check_mode, Display().display
            return result | box.apply(conf._replace(**set_here), given, check=check, tell=tell, names=names)
        except FarmhandError as error:
            ansible_error.leave(error)
            return result | {"failed": True, "msg": str(error), "error": error.as_dict()}
