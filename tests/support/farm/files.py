"""The files a farm needs on the controller: inventory, settings, the shell's env file."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.farm.farm import Farm

#: What site.yml builds a host from, relative to the checkout.
_SOURCES = (
    *("ansible.cfg", "site.yml", "pyproject.toml", "requirements", "roles"),
    *("library", "action_plugins", "filter_plugins", "src"),
    *("README.md", "LICENSE"),  # parts of the wheel
)
EXTRA_CA_DIR = Path("/usr/local/share/ca-certificates")


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write `text` whole or not at all; a file that has it already keeps its time."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def settings(**values: object) -> str:
    """The operator's config.toml."""
    # A JSON string or number is TOML as well.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def inventory(farm: Farm, address: str) -> str:
    """hosts.yml: group `farm` with the one host. JSON is YAML, and needs no quoting rules of its own."""
    known_hosts = shlex.quote(str(farm.state / "known_hosts"))
    host: dict[str, Any] = {
        "ansible_host": address,
        "ansible_user": "admin",
        "ansible_ssh_private_key_file": str(farm.state / "admin_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts} -o IdentitiesOnly=yes",
        "ansible_control_path": f"%(directory)s/{farm.name}",
        "ansible_become": True,
        "farmhand_config_dir": str(farm.state),
        "farmhand_known_hosts_file": str(farm.state / "known_hosts"),
    }
    if not farm.key_source:
        host["jada_agent_upstream_url"] = farm.api.url
    if any(EXTRA_CA_DIR.glob("*.crt")):
        # HTTPS out of this machine may pass a proxy that signs for itself: the host has to know its CA as well.
        host["base_ca_certificates_dir"] = str(EXTRA_CA_DIR)
    return json.dumps({"farm": {"hosts": {farm.container.hostname: host}}}, indent=2) + "\n"


def shell_env(programs: Path, variables: dict[str, str]) -> str:
    """What `. .demo/env` does, in words that sh, bash and zsh share."""
    path = shlex.quote(str(programs))
    lines = [
        "# Read this into a shell: . .demo/env",
        f'case ":$PATH:" in *:{path}:*) ;; *) PATH={path}:$PATH; export PATH ;; esac',
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        # A key or another source set in this shell would win over the demo's own.
        "unset FARMHAND_KEY_SOURCE FARMHAND_HOST",
    ]
    return "\n".join(lines) + "\n"


def digest(root: Path, *more: str) -> str:
    """A digest of what site.yml of the checkout at `root` builds a host from, and of `more`."""
    paths = [
        path for name in _SOURCES for path in ([root / name] if (root / name).is_file() else (root / name).rglob("*"))
    ]
    found = hashlib.sha256("\0".join(more).encode())
    for path in sorted(path for path in paths if path.is_file() and path.suffix != ".pyc"):
        found.update(f"\0{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
