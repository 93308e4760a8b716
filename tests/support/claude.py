"""The real claude CLI in the version that the role claude_cli pins, checked against its digest."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROLE = Path(__file__).resolve().parents[2] / "roles" / "claude_cli"


def cache_dir() -> Path:
    """Where the role keeps the packages it fetched: one cache for everything."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "farmhand"


def _role_file(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROLE / name / "main.yml").read_text())
    return values


def pinned_version() -> str:
    """The version that the role pins."""
    version: str = _role_file("defaults")["claude_cli_version"]
    return version


@cache
def claude_binary() -> Path:
    """The path of an executable that any user may run."""
    version = pinned_version()
    pinned = _role_file("vars")
    arch = platform.machine()
    package = pinned["_claude_cli_packages"][arch]
    digests = pinned["_claude_cli_digests"][version][arch]
    directory = Path("/var/tmp/farmhand-tests") / version
    binary = directory / "claude"
    if not (binary.exists() and _sha256(binary) == digests["binary"]):
        tarball = cache_dir() / f"{package.replace('@', '').replace('/', '-')}-{version}.tgz"
        if not tarball.exists():
            tarball.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["npm", "pack", "--silent", "--pack-destination", str(tarball.parent), f"{package}@{version}"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        found = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
        assert found == digests["tarball"], f"{tarball} is not the package that is pinned"
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        with tarfile.open(tarball) as archive:
            program = archive.extractfile("package/claude")
            assert program is not None, f"{tarball} has no package/claude"
            with binary.open("wb") as file:
                shutil.copyfileobj(program, file)
        binary.chmod(0o755)
        assert _sha256(binary) == digests["binary"], f"{binary} is not the program that is pinned"
    return binary


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
