"""What a rotation needs to know, from the settings and hosts.json: as plain parameters of `farmhand.rotation.build`.

Standard library only: the action plugin uses it where nothing but Ansible is installed.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from farmhand.dispatch.hosts import load_hosts
from farmhand.dispatch.settings import Settings


def parameters(conf: Settings) -> dict[str, Any]:
    """The parameters. Raises NotConfigured."""
    return {
        "key_source": conf.key_source,
        "hosts": [asdict(host) for host in load_hosts(conf.hosts_path).values()],
        "upstream_url": conf.upstream_url,
        "admin_key_source": conf.admin_key_source,
        "admin_url": conf.admin_url,
        "connect_timeout_s": conf.connect_timeout_s,
    }


def is_old(age_days: float, conf: Settings) -> bool:
    """Whether the age policy asks for another key."""
    return 0 < conf.key_max_age_days < age_days
