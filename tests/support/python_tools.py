"""Programs from PyPI for tests, each in an environment of its own, pinned by a lock with hashes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.node import ROOT

#: uv itself is pinned here. pip takes two minutes of a busy machine for aider's 109 packages, and uv 20 seconds.
_UV = Path(__file__).resolve().parents[1] / "data/gateway/uv"


def environment(files: Path) -> Path:
    """The environment with the packages of the lock in `files`, installed once for this lock."""
    return _made(files, [str(_uv()), "pip", "install", "--quiet", "--no-cache", "--python", "{python}"])


def _uv() -> Path:
    pip = ["{python}", "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-compile", "--no-cache-dir"]
    return _made(_UV, pip) / "bin/uv"


def _made(files: Path, install: list[str]) -> Path:
    lock = files / "requirements.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    target = ROOT / f"{files.name}-{digest}"
    ready = target / "ready"
    if not ready.exists():
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(target)], check=True)
        argv = [part.format(python=target / "bin/python") for part in install]
        subprocess.run([*argv, "--require-hashes", "-r", str(lock)], check=True, stdout=subprocess.DEVNULL)
        ready.touch()
    return target
