"""The farm hosts of an operator: hosts.json, which site.yml writes on the workstation beside config.toml."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from os import PathLike
from typing import Any

from farmhand.core.errors import NotConfigured, UsageError
from farmhand.core.keys import Credential
from farmhand.core.settings import AWS_PLACES, Settings
from farmhand.wire.transport import Host, unbracketed

__all__ = [
    "Host",
    "candidates",
    "choose_host",
    "credential",
    "every_host",
    "known_hosts",
    "load_hosts",
    "make_ready",
    "parse_host",
]
_FILE = (str, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    "address": (str,),
    "port": (int,),
    "user": (str,),
    "options": (list,),
    "ssh_config": _FILE,
    "identity_file": _FILE,
    "known_hosts_file": _FILE,
}


def known_hosts(conf: Settings) -> dict[str, Host]:
    """Return the hosts of the place in force by name: the farm's, or the containers' agent. Raise NotConfigured."""
    if conf.place == "docker":
        from farmhand.places import docker  # not at the top: the farm does not need it

        return {docker.NAME: docker.host(conf)}
    if conf.place in AWS_PLACES:
        raise UsageError(f"the place {conf.place} has no host to ask", hint="see: farmhand cloud status")
    return load_hosts(conf.hosts_name)


def credential(conf: Settings, *, every: bool = False) -> Credential:
    """Return what goes with tasks to a host of the place in force: see keysource.credential. Raise FarmhandError."""
    from farmhand.core import keysource  # not at the top: ssh is started before

    return keysource.credential(conf, len(known_hosts(conf)) if conf.pots else 1, every=every)


def every_host(conf: Settings, *, needed: bool = True) -> dict[str, Host]:
    """Return the hosts of all places where tasks and keys may be: the farm's, and the containers' agent if it runs.

    Raise NotConfigured; unless one is `needed`, no hosts file means no farm host.
    """
    from farmhand.places import docker

    here: dict[str, Host] = {docker.NAME: docker.host(conf)} if docker.existing(conf).exists() else {}
    missing = (here or not needed) and not os.path.exists(conf.hosts_name)
    return here if missing else load_hosts(conf.hosts_name) | here


def make_ready(conf: Settings, say: Callable[[str], None]) -> None:
    """Start what the place in force needs here; `say` gets the steps. Raise NotConfigured."""
    if conf.place == "docker":
        from farmhand.places import docker

        docker.pair(conf).up(say)


def load_hosts(path: str | PathLike[str]) -> dict[str, Host]:
    """Return the hosts in `path` by name. Raise NotConfigured, naming file, host and key."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read())
    except FileNotFoundError:
        raise _wrong(f"no farm host is known: {path} does not exist") from None
    except OSError as error:
        raise _wrong(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{path}: not JSON: {error}") from None
    entries = document.get("hosts") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise _wrong(f"{path}: has no object 'hosts'")
    return {name: parse_host(f"{path}: host {name!r}", name, entry) for name, entry in entries.items()}


def parse_host(where: str, name: str, entry: Any) -> Host:
    """Return the host of one entry. Unknown keys come from a newer site.yml and are ignored. Raise NotConfigured."""
    if not isinstance(entry, dict):
        raise _wrong(f"{where} is not an object")
    values = {key: entry[key] for key in _KINDS if key in entry}
    for key, value in values.items():
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool) or value == "":
            raise _wrong(f"{where}: {key} is {value!r}, which is not of the right kind")
    if "address" not in values:
        raise _wrong(f"{where}: address is missing")
    if not 1 <= values.get("port", 22) <= 65535:
        raise _wrong(f"{where}: port is {values['port']}, not 1 to 65535")
    if "options" in values:
        values["options"] = tuple(_option(where, each) for each in values["options"])
    return Host(name=name, **values)


def _option(where: str, text: Any) -> str:
    """Return `text` if it is an ssh option that only affects how a host is reached. Raise NotConfigured."""
    from farmhand.wire import route  # not at the top: most hosts have no options

    try:
        made = route.option(text) if isinstance(text, str) else ""
    except ValueError as error:
        raise _wrong(f"{where}: options: {error}") from None
    if not made:
        message = f"{where}: options: {text!r} does not say how to reach a host"
        raise NotConfigured(message, hint="log-ins, forwardings and host key checks are not set here")
    return made


def _wrong(message: str) -> NotConfigured:
    return NotConfigured(message, hint="it is written by site.yml: farmhand up")


def choose_host(hosts: dict[str, Host], wanted: str, path: str | PathLike[str]) -> Host:
    """Return the host `wanted`; with "" the only one there is. Raise NotConfigured."""
    found = candidates(hosts, wanted, path)
    if len(found) > 1:
        names = ", ".join(sorted(hosts))
        raise NotConfigured(f"there are {len(hosts)} farm hosts: {names}", hint="choose one with --host NAME")
    return found[0]


def candidates(hosts: dict[str, Host], wanted: str, path: str | PathLike[str]) -> list[Host]:
    """Return the hosts to try, in order: only `wanted`, or all with "". Raise NotConfigured."""
    if wanted:
        wanted = wanted if wanted in hosts else unbracketed(wanted)
        if wanted not in hosts:
            names = ", ".join(sorted(hosts))
            raise NotConfigured(f"no farm host is called {wanted!r} in {path}", hint=f"known: {names or 'none'}")
        return [hosts[wanted]]
    if not hosts:
        raise _wrong(f"{path} names no farm host")
    return list(hosts.values())
