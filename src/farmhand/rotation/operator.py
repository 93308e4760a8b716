"""The parameters of `farmhand.rotation.build`, from the settings and hosts.json.

Standard library only: the action plugin also uses it where only Ansible is installed.
"""

from __future__ import annotations

import time
from typing import Any

from farmhand.core.keys import fingerprint
from farmhand.core.settings import Settings
from farmhand.places.hosts import load_hosts
from farmhand.rotation.build import memory_of, since_of


def parameters(conf: Settings) -> dict[str, Any]:
    """Return the parameters. Raises NotConfigured."""
    return {
        "key_source": conf.key_source,
        "hosts": [
            {name: _plain(value) for name, value in host._asdict().items()}
            for host in load_hosts(conf.hosts_path).values()
        ],
        "upstream_url": conf.upstream_url,
        "admin_key_source": conf.admin_key_source,
        "admin_url": conf.admin_url,
        "connect_timeout_s": conf.connect_timeout_s,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def age_days(conf: Settings, key: str) -> float:
    """Return the key's minimum age in days, since a rotation brought it or its file was last changed."""
    now = time.time()
    since = memory_of({"key_source": conf.key_source}).seen(fingerprint(key)) or since_of(conf.key_source) or now
    return max(0.0, now - since) / 86400


def is_old(age_days: float, conf: Settings) -> bool:
    """Return whether the age policy requires a new key."""
    return 0 < conf.key_max_age_days < age_days
