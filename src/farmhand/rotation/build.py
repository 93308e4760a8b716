"""A rotation's machine made from the operator's settings, for both front ends, and the age of the key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from farmhand.core.errors import NotConfigured, WireError, not_configured
from farmhand.core.keys import PREFIX, fingerprint
from farmhand.core.keysource import DEFAULT_SOURCE, read_key
from farmhand.core.settings import Settings
from farmhand.places import hosts
from farmhand.places.hosts import parse_host
from farmhand.rotation.fleet import RotationHost
from farmhand.rotation.machine import Machine
from farmhand.rotation.provider import Provider
from farmhand.rotation.sources import open_source
from farmhand.rotation.state import Memory, state_dir
from farmhand.wire.transport import UnixTransport

#: Allowed sources of a new key, besides a prompt and stdin.
NEW_KEY_KINDS = ("file", "command", "keyring")
_READ_ONLY = ("env:", "command:")
_ON_AWS = "secretsmanager:"


def memory_of(source: str, conf: Settings | None = None) -> Memory:
    """Return the memory for rotations of this key source, which has one canonical name, however it is spelled."""

    def place(source: str) -> str:
        return source if source.startswith(_READ_ONLY) else open_source(source, conf).place

    return Memory(state_dir(place(source), place(source) == place(DEFAULT_SOURCE)))


def known_hosts(conf: Settings) -> list[RotationHost]:
    """Return the hosts where a key may be; none for a key on AWS if there are no farm hosts. Raise NotConfigured."""
    limit = conf.connect_timeout_s
    try:
        known = hosts.every_host(conf)
    except NotConfigured:
        if not conf.key_source.startswith(_ON_AWS) or conf.hosts_path.exists():
            raise
        known = {}
    return [RotationHost(name, partial(host.transport, limit), conf.pot) for name, host in known.items()]


def given_host(entry: Mapping[str, Any], connect_timeout_s: float, pot: str = "") -> RotationHost:
    """Return the host of an entry as in hosts.json with its `name`, or with the `socket` of an agent on this machine.

    Raise NotConfigured.
    """
    name = str(entry.get("name") or "?")
    if socket := entry.get("socket"):
        return RotationHost(name, partial(UnixTransport, socket, name=name, connect_timeout_s=connect_timeout_s), pot)
    host = parse_host(f"hosts: host {name!r}", name, {key: value for key, value in entry.items() if value is not None})
    return RotationHost(name, partial(host.transport, connect_timeout_s), pot)


def build(
    conf: Settings,
    hosts: Sequence[RotationHost],
    *,
    tell: Callable[[str], None],
    memory: Memory | None = None,
    **options: Any,
) -> Machine:
    """Return the machine; `options` are Machine's `drain_s`, `retire_s` and `force`. Raise WireError."""
    admin_key = read_key(conf.admin_key_source) if conf.admin_key_source else ""
    provider = Provider(conf.upstream_url, admin_key, conf.admin_url)
    memory = memory or memory_of(conf.key_source, conf)
    return Machine(open_source(conf.key_source, conf), hosts, provider, memory, tell=tell, **options)


def check_new_key_source(source: str) -> str:
    """Return `source` if a new key may come from it. Raise WireError, whose message never quotes `source`."""
    kind, colon, _ = source.partition(":")
    if PREFIX in source:
        message = "the new key itself was given: every process of this machine can see an argument"
        raise WireError("usage", message, "that key has leaked: make another one, and name a source of it", 400)
    if not colon or kind not in NEW_KEY_KINDS:
        hint = "use file:PATH[#NAME], command:ARGV or keyring:SERVICE/USER"
        raise not_configured("the source of the new key is not of a known form", hint)
    return source


def age_days(conf: Settings, key: str) -> float:
    """Return the key's minimum age in days, since a rotation brought it or its file was last changed."""
    now, source = time.time(), conf.key_source
    unchanged_since = None if source.startswith(_READ_ONLY) else open_source(source, conf).since()
    since = memory_of(source, conf).seen(fingerprint(key)) or unchanged_since or now
    return max(0.0, now - since) / 86400


def is_old(age_days: float, conf: Settings) -> bool:
    """Return whether the age policy requires a new key."""
    return 0 < conf.key_max_age_days < age_days
