"""The image of a host that site.yml has built, made once for each state of the sources: the tests' hosts start from it.

What belongs to one host alone is not in it: ssh host keys, machine id, ledger, the keys of the operator. A host that
starts from the image makes its own at boot, and gets the rest, with the API's address, by `site.yml` with REFRESH.
"""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
from pathlib import Path

from tests.support.farm import files
from tests.support.farm.checkout import copy_checkout
from tests.support.farm.container import IMAGE
from tests.support.farm.farm import Farm
from tests.support.farm.run import FarmError, check, run

ROOT = Path(__file__).parents[3]
NAME = "farmhand-host"
_MADE_BY = ("container.py", "farm.py", "files.py", "image.py", "../compiled_once.py")
#: The arguments of site.yml for a host of the image: what every host has alike is left out.
REFRESH = ("--skip-tags", "packages,ca,accounts,scrub,claude_cli,install")
#: Leave nothing behind that two hosts must not share. The machine id is made again at boot where its file is empty.
_FORGET = """set -e
systemctl stop jada-agent.socket jada-agent.service
rm -rf /var/lib/jada-agent/* /home/admin/.ssh /var/log/journal/* /var/cache/apt/archives/*.deb
rm /etc/ssh/ssh_host_* /etc/ssh/farmhand_authorized_keys
: > /etc/machine-id
"""


def host_image(root: Path = ROOT) -> str:
    """The name of the image for the sources of `root`. The first that asks builds it; the others wait for that."""
    lock = root / ".cache" / "host-image.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        name = f"{NAME}:{_digest(root)}"
        if not _listed("--filter", f"reference={name}"):
            _build(root, name)
            _remove_older(root, name)
    return name


def _digest(root: Path) -> str:
    """Of all that the image depends on: sources, base image, extra CA certificates, and how it is made."""
    made_by = [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in _MADE_BY]
    extra = [path.read_text(encoding="ascii") for path in sorted(files.EXTRA_CA_DIR.glob("*.crt"))]
    base = check(["docker", "image", "inspect", "--format", "{{.Id}}", IMAGE])
    return files.digest(root, base, *made_by, *extra)[:16]


def _build(root: Path, name: str) -> None:
    """Boot a bare host, run site.yml over it as `make demo` does, and keep what it has become."""
    with tempfile.TemporaryDirectory(prefix="farmhand-host-") as directory:
        farm = Farm(copy_checkout(root, Path(directory) / "checkout"))
        try:
            farm.boot()
            farm.build()
            done = farm.exec("sh", "-c", _FORGET)
            if done.returncode != 0:
                raise FarmError(f"{farm.name}: {done.stderr}")
            check(["docker", "commit", "--change", f"LABEL farmhand.checkout={_checkout(root)}", farm.name, name])
        finally:
            farm.down()


def _remove_older(root: Path, name: str) -> None:
    """Remove this checkout's images of other states. One that a container still uses stays until the next time."""
    for other in _listed("--filter", f"reference={NAME}", "--filter", f"label=farmhand.checkout={_checkout(root)}"):
        if other != name:
            run(["docker", "image", "rm", other])


def _checkout(root: Path) -> str:
    return hashlib.sha256(str(root).encode()).hexdigest()[:8]


def _listed(*filters: str) -> list[str]:
    return check(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *filters]).split()
