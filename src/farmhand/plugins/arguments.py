"""The arguments of an action plugin, checked against what its module in library/ documents."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any


@cache
def options(plugin: str) -> dict[str, dict[str, Any]]:
    """Return the documented options of the module whose action plugin is the file `plugin`."""
    from ansible.parsing.plugin_docs import read_docstring

    path = Path(plugin).resolve()
    # In a collection modules are beside the action plugins under another name.
    folder = next(name for name in ("library", "modules") if (path.parents[1] / name / path.name).exists())
    documentation = read_docstring(str(path.parents[1] / folder / path.name), verbose=False)
    found: dict[str, dict[str, Any]] = documentation["doc"]["options"]
    return found


def arguments(action: Any, plugin: str) -> dict[str, Any]:
    """Return the arguments of the task of `action`, converted and with defaults. Raise AnsibleActionFail."""
    given: dict[str, Any] = action.validate_argument_spec(options(plugin))[1]
    return given
