"""What a repository task left is kept: where the operator says, or where there is room for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from farmhand.cli import render
from farmhand.cli.say import note
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.files import xdg
from farmhand.core.task import PATCH, TASK_OUTPUTS

#: How many tasks' changes are kept that nobody has named a place for.
KEPT = 20


def empty_directory(name: str) -> Path:
    """Return the directory for the results, made if it is missing. Raise UsageError if it is not empty."""
    if not name:
        raise UsageError("--out '' is not the name of a directory")
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise UsageError(f"--out {name} is not empty", hint="name a new directory")
        if not os.access(path, os.W_OK | os.X_OK):
            raise UsageError(f"--out {name}: no permission to write there")
    except OSError as error:
        raise UsageError(f"--out {name}: {error.strerror}") from None
    return path


def keep(target: Path | None, directory: Path, result: dict[str, Any]) -> None:
    """Copy what came back to `target`. The patch is kept even if it is refused: to be read, not to be applied.

    A file is there whole or not at all. Raise FarmhandError.
    """
    if target is None:
        return
    for name in TASK_OUTPUTS:  # the patch first, while there is room
        if (directory / name).stat().st_size:
            _put(target, name, partial(shutil.copyfile, directory / name))
    write_result(target, result)


def write_result(target: Path | None, result: dict[str, Any]) -> None:
    """Write the result to `target`. Raise FarmhandError."""
    if target is not None:
        content = f"{render.json_text(result, indent=2)}\n".encode()
        _put(target, "result.json", lambda new: new.write_bytes(content))


def _put(target: Path, name: str, write: Callable[[Path], object]) -> None:
    new = target / f".{name}.new"
    try:
        try:
            write(new)
            os.replace(new, target / name)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(target, error) from None


def keep_patch(target: Path | None, directory: Path, result: dict[str, Any]) -> Path | None:
    """Keep a patch that has been paid for, and return where; None if there is none.

    It is in `target`, or in a directory that has those of the last KEPT tasks. Where neither has room, it stays on the
    disk that it is on, in a directory of its own. Raise FarmhandError.
    """
    if not (directory / PATCH).stat().st_size:
        return None
    if target is not None and (target / PATCH).exists():
        return target / PATCH
    target = Path(xdg("XDG_STATE_HOME"), "farmhand", "code", str(result["id"]))
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(target.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        keep(target, directory, result)
    except (FarmhandError, OSError) as error:
        if (target / PATCH).exists():
            return target / PATCH
        note(str(error if isinstance(error, FarmhandError) else _unwritable(target, error)))
        with contextlib.suppress(OSError):
            target.rmdir()
        return _set_aside(directory)
    return target / PATCH


def _set_aside(directory: Path) -> Path:
    try:
        kept = Path(tempfile.mkdtemp(prefix="farmhand-patch-"), PATCH)
        os.replace(directory / PATCH, kept)
    except OSError as error:
        raise _unwritable(Path(tempfile.gettempdir()), error) from None
    return kept


def _unwritable(target: Path, error: OSError) -> FarmhandError:
    return FarmhandError(f"{target} cannot be written: {error.strerror}", code="no_space")
