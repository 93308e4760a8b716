"""Small repositories, made by the real git with a name of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always")
_ONE_FILE = MappingProxyType({"f": "one\n"})


def git(*words: str, cwd: Path) -> str:
    """The stdout of a git command that has no settings but those in `cwd`."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(cwd), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *_IDENTITY, *words], cwd=cwd, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_repository(path: Path, files: Mapping[str, str] = _ONE_FILE) -> Path:
    """Make a repository whose branch `main` has one commit with these files; return its path."""
    path.mkdir(parents=True)
    git("init", "--quiet", "-b", "main", cwd=path)
    for name, text in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text)
    git("add", ".", cwd=path)
    git("commit", "--quiet", "-m", "first", cwd=path)
    return path
