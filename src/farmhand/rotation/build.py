"""Construction of a machine from plain parameters, for both front ends: `farmhand rotate` and the Ansible module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.errors import WireError, not_configured
from ..core.keys import PREFIX
from ..core.keysource import DEFAULT_SOURCE, read_key
from .fleet import RotationHost
from .machine import Machine
from .provider import Provider
from .sources import open_source
from .state import Memory, state_dir

#: Allowed sources of a new key, besides a prompt and stdin.
NEW_KEY_KINDS = ("file", "command", "keyring")


def memory_of(parameters: Mapping[str, Any]) -> Memory:
    """Return the memory for rotations of this key source."""
    if parameters.get("state_dir"):
        return Memory(str(parameters["state_dir"]))
    place = _place(str(parameters["key_source"]))
    return Memory(state_dir(place, place == _place(DEFAULT_SOURCE)))


def since_of(source: str) -> float | None:
    """Return the time from which the content of this key source is certainly unchanged; None if unknown."""
    return None if source.startswith(("env:", "command:")) else open_source(source).since()


def _place(source: str) -> str:
    """Return one canonical name for a key source, however it is spelled."""
    return source if source.startswith(("env:", "command:")) else open_source(source).place


def build(parameters: Mapping[str, Any], *, tell: Callable[[str], None] = lambda _line: None) -> Machine:
    """Build the machine from `key_source`, `hosts` (entries as in hosts.json, each with its `name`) and `upstream_url`.

    Optional parameters: `admin_key_source`, `admin_url`, `connect_timeout_s`, `drain_s`, `retire_s`, `force`,
    `state_dir`. Raises WireError.
    """
    admin_source = str(parameters.get("admin_key_source") or "")
    provider = Provider(
        str(parameters["upstream_url"]),
        read_key(admin_source) if admin_source else "",
        str(parameters.get("admin_url") or ""),
    )
    connect_timeout_s = float(parameters.get("connect_timeout_s") or 10.0)
    times = {name: float(parameters[name]) for name in ("drain_s", "retire_s") if parameters.get(name) is not None}
    return Machine(
        open_source(str(parameters["key_source"])),
        [RotationHost(entry, connect_timeout_s) for entry in parameters.get("hosts") or []],
        provider,
        memory_of(parameters),
        tell=tell,
        force=bool(parameters.get("force")),
        **times,
    )


def check_new_key_source(source: str) -> str:
    """Return `source` if a new key may come from it. Raises WireError, whose message never quotes `source`."""
    kind, colon, _ = source.partition(":")
    if PREFIX in source:
        message = "the new key itself was given: every process of this machine can see an argument"
        raise WireError("usage", message, "that key has leaked: make another one, and name a source of it", 400)
    if not colon or kind not in NEW_KEY_KINDS:
        raise not_configured(
            "the source of the new key is not of a known form",
            "use file:PATH[#NAME], command:ARGV or keyring:SERVICE/USER",
        )
    return source
