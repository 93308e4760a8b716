"""The farm hosts an operator can reach: hosts.json, which site.yml writes on the workstation beside config.toml."""

from __future__ import annotations

import json
from os import PathLike
from typing import Any, NamedTuple

from farmhand.core.errors import NotConfigured
from farmhand.wire.transport import SshTransport, unbracketed

_WRITTEN_BY = "it is written by site.yml: farmhand up"


class Host(NamedTuple):
    """One farm host and how to log in to its dispatch account.

    `address` is what ssh is given, which may be an alias of its configuration; `port` 0 leaves the port to that.
    `options` are more of ssh's options (`ProxyJump=bastion`), `ssh_config` another configuration than the usual one.
    `known_hosts_file` None stands for ssh's own files.
    """

    name: str
    address: str
    port: int = 0
    user: str = "farmhand"
    options: tuple[str, ...] = ()
    ssh_config: str | None = None
    identity_file: str | None = None
    known_hosts_file: str | None = None

    def transport(self, connect_timeout_s: float) -> SshTransport:
        """The way to its agent. Raises WireError `not_configured` for a file that is not there."""
        return SshTransport(
            self.address,
            name=self.name,
            port=self.port,
            user=self.user,
            options=self.options,
            ssh_config=self.ssh_config,
            identity_file=self.identity_file,
            known_hosts_file=self.known_hosts_file,
            connect_timeout_s=connect_timeout_s,
        )


def load_hosts(path: str | PathLike[str]) -> dict[str, Host]:
    """The hosts in `path` by name. Raises NotConfigured, naming file, host and key."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read())
    except FileNotFoundError:
        raise NotConfigured(f"no farm host is known: {path} does not exist", hint=_WRITTEN_BY) from None
    except OSError as error:
        raise NotConfigured(f"{path}: {error.strerror}", hint=_WRITTEN_BY) from None
    except (ValueError, RecursionError) as error:
        raise NotConfigured(f"{path}: not JSON: {error}", hint=_WRITTEN_BY) from None
    entries = document.get("hosts") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise NotConfigured(f"{path}: has no object 'hosts'", hint=_WRITTEN_BY)
    return {name: _host(path, name, entry) for name, entry in entries.items()}


def _host(path: str | PathLike[str], name: str, entry: Any) -> Host:
    """One entry. Keys that this version does not know are a newer site.yml's, and left alone."""
    where = f"{path}: host {name!r}"
    if not isinstance(entry, dict):
        raise NotConfigured(f"{where} is not an object", hint=_WRITTEN_BY)
    kinds: dict[str, tuple[type, ...]] = {
        "address": (str,),
        "port": (int,),
        "user": (str,),
        "options": (list,),
        "ssh_config": (str, type(None)),
        "identity_file": (str, type(None)),
        "known_hosts_file": (str, type(None)),
    }
    values = {key: entry[key] for key in kinds if key in entry}
    for key, value in values.items():
        if not isinstance(value, kinds[key]) or isinstance(value, bool) or value == "":
            raise NotConfigured(f"{where}: {key} is {value!r}, which is not of the right kind", hint=_WRITTEN_BY)
    if "address" not in values:
        raise NotConfigured(f"{where}: address is missing", hint=_WRITTEN_BY)
    if not 1 <= values.get("port", 22) <= 65535:
        raise NotConfigured(f"{where}: port is {values['port']}, not 1 to 65535", hint=_WRITTEN_BY)
    if "options" in values:
        values["options"] = tuple(_option(where, each) for each in values["options"])
    return Host(name=name, **values)


def _option(where: str, text: Any) -> str:
    """`text` if it is an option of ssh that says how a host is reached, and nothing else."""
    from farmhand.wire import route  # not at the top: most hosts need none

    try:
        made = route.option(text) if isinstance(text, str) else ""
    except ValueError as error:
        raise NotConfigured(f"{where}: options: {error}", hint=_WRITTEN_BY) from None
    if not made:
        message = f"{where}: options: {text!r} does not say how to reach a host"
        raise NotConfigured(message, hint="log-ins, forwardings and host key checks are not set here")
    return made


def choose_host(hosts: dict[str, Host], wanted: str, path: str | PathLike[str]) -> Host:
    """The host called `wanted`; with "" the only one there is. Raises NotConfigured."""
    found = candidates(hosts, wanted, path)
    if len(found) > 1:
        names = ", ".join(sorted(hosts))
        raise NotConfigured(f"there are {len(hosts)} farm hosts: {names}", hint="choose one with --host NAME")
    return found[0]


def candidates(hosts: dict[str, Host], wanted: str, path: str | PathLike[str]) -> list[Host]:
    """The hosts to try in their order: the one called `wanted` alone, with "" all. Raises NotConfigured."""
    if wanted:
        wanted = wanted if wanted in hosts else unbracketed(wanted)
        if wanted not in hosts:
            names = ", ".join(sorted(hosts))
            raise NotConfigured(f"no farm host is called {wanted!r} in {path}", hint=f"known: {names or 'none'}")
        return [hosts[wanted]]
    if not hosts:
        raise NotConfigured(f"{path} names no farm host", hint=_WRITTEN_BY)
    return list(hosts.values())
