"""A second checkout of these sources, as a new user would have it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.farm.run import check


def copy_checkout(source: Path, target: Path) -> Path:
    """Copy what git tracks or would track from `source` to `target`; the venv and the caches are shared by a link."""
    listed = check(["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    for name in filter(None, listed.split("\0")):
        if (source / name).exists():  # a tracked file that is deleted in the working tree is listed as well
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    for name in (".venv", ".cache"):
        (target / name).symlink_to(source / name)
    return target
