"""A workstation that makes boxes on a stand-in for AWS: its settings, files and options."""

from __future__ import annotations

import base64
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farmhand.core.settings import Settings
from farmhand.plugins.box import apply

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = {
    "state": "present",
    "wait_s": 60.0,
    "poll_s": 0.01,
    "known_hosts_file": "",
    "name": "farm1",
    "ssh_from": ["203.0.113.7/32"],
}


def key_line(seed: int) -> str:
    """A public host key that is whole, though nobody has its private half."""
    fields = (b"ssh-ed25519", bytes([seed]) * 32)
    return "ssh-ed25519 " + base64.b64encode(b"".join(struct.pack(">I", len(each)) + each for each in fields)).decode()


@dataclass
class Workstation:
    """A home, an inventory and a login; `make` runs the module's body."""

    home: Path
    region: str = "us-east-1"
    environment: str = "try"
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in (self.ssh, self.inventory):
            folder.mkdir(parents=True, exist_ok=True)
        if not self.public.exists():
            self.public.write_text(f"{key_line(1)} operator@workstation\n")
            # A private key that must never be read: reading it would be an error.
            (self.ssh / "id_ed25519").mkdir()

    @property
    def ssh(self) -> Path:
        return self.home / ".ssh"

    @property
    def public(self) -> Path:
        return self.ssh / "id_ed25519.pub"

    @property
    def known_hosts(self) -> Path:
        return self.ssh / "known_hosts"

    @property
    def inventory(self) -> Path:
        return self.home / "inventory"

    @property
    def record(self) -> Path:
        return self.inventory / "farm1.yml"

    def make(self, *, check: bool = False, names: tuple[str, ...] = (), **given: Any) -> dict[str, Any]:
        """Run the module with these options."""
        conf = Settings(
            aws_environment=self.environment, aws_region=self.region, hosts_file=str(self.home / "hosts.json")
        )
        options: dict[str, Any] = dict.fromkeys(
            ("provider", "region", "zone", "size", "image", "user", "disk_gb", "public_key", "usd_month"), None
        )
        options |= DEFAULTS | {"inventory_dir": str(self.inventory)} | given
        return apply(conf, options, check=check, tell=self.said.append, names=names)

    def files(self) -> dict[str, bytes]:
        """What is in the home, by path."""
        found = {}
        for folder, _, names in os.walk(self.home):
            for name in names:
                path = Path(folder, name)
                found[str(path.relative_to(self.home))] = path.read_bytes()
        return found
