"""Checks of files: whether they may be changed, and whether a shell accepts a text (`-n` reads it and runs nothing)."""

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
#: zsh continues after an error when it reads commands from stdin, and exits with 0; from a file it stops.
_AS_FILE = {"zsh": ["/dev/stdin"]}
#: Options that a start-up file may enable before the line that needs them, which `-n` does not detect.
OPTIONS: dict[str, tuple[tuple[str, ...], ...]] = {"bash": ((), ("-O", "extglob"))}


def refusal(path: Path, home: Path) -> str | None:
    """Return why the file at `path` must not be changed; None if it may be. A link may lead within the same home."""
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
    """Return the line of `text` that `shell` rejects with all options.

    Return None if the text is accepted, 0 if the shell gave no answer.
    """
    lines = [_refused(text, shell, options) for options in OPTIONS.get(shell, ((),))]
    return None if None in lines else 0 if 0 in lines else lines[0]


def options_for(text: str, shell: str) -> tuple[str, ...] | None:
    """Return the first of OPTIONS with which `shell` accepts `text`; None if there are none."""
    return next((o for o in OPTIONS.get(shell, ((),)) if _refused(text, shell, o) is None), None)


def accepts(text: str, shell: str, options: Sequence[str] = ()) -> bool:
    """Return whether `shell`, started with `options`, accepts `text` as complete and valid."""
    return _refused(text, shell, options) is None


def refuses(text: str, shell: str, options: Sequence[str] = ()) -> bool:
    """Return whether `shell`, started with `options`, reports `text` as invalid; False also if it gave no answer."""
    return bool(_refused(text, shell, options))


def no_answer(shell: str, path: Path) -> str:
    """Return why `shell` did not check the file at `path`, and what to do."""
    if shutil.which(shell) is None:
        return f"there is no {shell} on PATH to check {path} with; take it out by hand"
    return f"{shell} did not say in time whether {path} is valid; run this again"


def _refused(text: str, shell: str, options: Sequence[str]) -> int | None:
    """Return the rejected line, None for none, 0 for no answer: no such shell, not started, too slow, or killed."""
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
