"""What the agent tells of the host beside its own numbers."""

from __future__ import annotations

import re
from pathlib import Path

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def cli_version(claude_path: str) -> str | None:
    """The version of the claude CLI that tasks with tools run: the role claude_cli installs each into a directory of
    its name. `unknown` where it was installed otherwise, None where there is none.
    """
    try:
        binary = Path(claude_path).resolve(strict=True)
    except OSError:
        return None
    return binary.parent.name if _VERSION.fullmatch(binary.parent.name) else "unknown"
