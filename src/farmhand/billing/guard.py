"""Which files may be changed, and whether a shell still accepts one."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

_LINE = re.compile(rb"(?:line |:)(\d+)[:) ]|^\S+: (\d+):", re.MULTILINE)
CHECK_S = 10.0


def refusal(path: Path, home: Path) -> str | None:
    """Why the file at `path` is left alone; None if it may be changed.

    A link is followed to a file of the same home.
    """
    target = path.resolve()
    try:
        status = target.stat()
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    inside = target.is_relative_to(home.resolve())
    if path.is_symlink() and path.is_relative_to(home) and not inside:
        return f"it is a link to {target}, outside of the home directory"
    if status.st_uid != os.geteuid():
        return f"it belongs to another user (uid {status.st_uid})"
    if not status.st_mode & stat.S_IWUSR:
        return f"it is read-only (mode {stat.S_IMODE(status.st_mode):04o})"
    if status.st_nlink > 1:
        return f"it has {status.st_nlink} hard links, which a new file would break"
    if not os.access(target.parent, os.W_OK):
        return f"its directory {target.parent} cannot be written to"
    return None


def syntax_error(text: str, shell: str) -> int | None:
    """The line that `shell` itself refuses, by its `-n`, which runs nothing.

    None if it accepts the text, or is not installed.
    """
    program = shutil.which(shell)
    if program is None:
        return None
    argv = {"zsh": [program, "-f", "-n"], "fish": [program, "--no-config", "-n"]}.get(shell, [program, "-n"])
    try:
        done = subprocess.run(
            argv,
            input=text.encode("utf-8", "surrogateescape"),
            env={"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "LC_ALL": "C"},
            capture_output=True,
            timeout=CHECK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return None
    found = _LINE.search(done.stderr)
    return int(found[1] or found[2]) if found else 1
