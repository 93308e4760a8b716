"""Which files may be changed, and what a shell itself says of a text: `-n` reads it and runs nothing."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

_LINE = re.compile(rb"(?:line |:)(\d+)[:) ]|^\S+: (\d+):", re.MULTILINE)
CHECK_S = 10.0
_READ_ONLY = {"zsh": ["-f", "-n"], "fish": ["--no-config", "-n"]}
#: zsh that reads commands from its input goes on after an error and then exits with 0; from a file it stops.
_AS_FILE = {"zsh": ["/dev/stdin"]}
#: What a start-up file may have switched on before the line that needs it; `-n` does not see that.
OPTIONS: dict[str, tuple[tuple[str, ...], ...]] = {"bash": ((), ("-O", "extglob"))}


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
    if path.is_relative_to(home) and not inside:
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
    """The line of `text` that `shell` refuses, whatever options are switched on.

    None if it accepts the text, 0 if it gave no answer.
    """
    lines = [_refused(text, shell, options) for options in OPTIONS.get(shell, ((),))]
    return None if None in lines else 0 if 0 in lines else lines[0]


def options_for(text: str, shell: str) -> tuple[str, ...] | None:
    """The first of OPTIONS with which `shell` accepts `text`; None if there is none."""
    return next((o for o in OPTIONS.get(shell, ((),)) if _refused(text, shell, o) is None), None)


def accepts(text: str, shell: str, options: Sequence[str] = ()) -> bool:
    """Whether `shell`, started with `options`, finds `text` whole and valid."""
    return _refused(text, shell, options) is None


def refuses(text: str, shell: str, options: Sequence[str] = ()) -> bool:
    """Whether `shell`, started with `options`, says that `text` is not valid. Without an answer it does neither."""
    return bool(_refused(text, shell, options))


def no_answer(shell: str, path: Path) -> str:
    """Why `shell` did not say whether the file at `path` is valid, and what to do."""
    if shutil.which(shell) is None:
        return f"there is no {shell} on PATH to check {path} with; take it out by hand"
    return f"{shell} did not say in time whether {path} is valid; run this again"


def _refused(text: str, shell: str, options: Sequence[str]) -> int | None:
    """The line that is refused, None for none, 0 for no answer: no such shell, not started, too slow, or killed."""
    program = shutil.which(shell)
    if program is None:
        return 0
    try:
        done = subprocess.run(
            [program, *_READ_ONLY.get(shell, ["-n"]), *options, *_AS_FILE.get(shell, [])],
            input=text.encode("utf-8", "surrogateescape"),
            env={"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "LC_ALL": "C"},
            capture_output=True,
            timeout=CHECK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    if done.returncode <= 0:  # below 0: killed by a signal
        return 0 if done.returncode else None
    found = _LINE.search(done.stderr)
    return max(1, int(found[1] or found[2])) if found else 1
