"""The farm hosts of an operator: hosts.json, which site.yml writes on the workstation beside config.toml."""

from __future__ import annotations

import json
from os import PathLike
from typing import Any, NamedTuple

from farmhand.core.errors import NotConfigured
from farmhand.wire.transport import SshTransport, unbracketed

_WRITTEN_BY = "it is written by site.yml: farmhand up"


class Host(NamedTuple):
    """One farm host and the login to its dispatch account.

    `address` is passed to ssh and may be an alias of its configuration; `port` 0 leaves the port to ssh. `options` are
    additional ssh options (`ProxyJump=bastion`), `ssh_config` is an alternative configuration file. `known_hosts_file`
    None means ssh's own files.
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
        """Return the transport to its agent. Raise WireError `not_configured` if a file is missing."""
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
    """Return the hosts in `path` by name. Raise NotConfigured, naming file, host and key."""
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
    """Return the host of one entry. Unknown keys come from a newer site.yml and are ignored."""
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
    """Return `text` if it is an ssh option that only affects how a host is reached. Raise NotConfigured."""
    from farmhand.wire import route  # not at the top: most hosts have no options

    try:
        made = route.option(text) if isinstance(text, str) else ""
    except ValueError as error:
        raise NotConfigured(f"{where}: options: {error}", hint=_WRITTEN_BY) from None
    if not made:
        message = f"{where}: options: {text!r} does not say how to reach a host"
        raise NotConfigured(message, hint="log-ins, forwardings and host key checks are not set here")
    return made


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
        raise NotConfigured(f"{path} names no farm host", hint=_WRITTEN_BY)
    return list(hosts.values())
