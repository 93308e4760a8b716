"""The search for everything that could bring a metered credential to an interactive `claude`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .verdict import Report


def find(
    home: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
    *,
    root: Path = Path("/"),
    ask: bool = True,
    ask_shell: bool = True,
) -> Report:
    """Start the operator's shells and see what `claude` gets in each.

    `environ` is the session's environment that the shells are started from: {} for none. `cwd` is where they start, the
    current project. `root` is the system's root (tests). `ask` also asks systemd's user manager (or launchd) for its
    environment. `ask_shell` False starts nothing of the operator's: the files are read, and every verdict is a reading.
    """
    raise NotImplementedError
