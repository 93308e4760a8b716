"""An error on its way out of Ansible: an action plugin leaves it in a file for the command that runs the playbook.

Ansible ends with 2 for whatever failed, and that command has exit codes of its own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from farmhand.core.errors import FarmhandError

#: The variable with the file's path.
VARIABLE = "FARMHAND_ERROR_FILE"


def leave(error: FarmhandError) -> None:
    """Write the error for the command, if one has started Ansible."""
    if path := os.environ.get(VARIABLE):
        Path(path).write_text(json.dumps(error.as_dict() | {"exit_code": error.exit_code}), encoding="utf-8")


def found(path: Path) -> FarmhandError | None:
    """Return the error that was left, with its exit code; None if there is none."""
    try:
        left = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    error = FarmhandError(left["message"], hint=left["hint"], code=left["code"])
    error.exit_code = left["exit_code"]
    return error
