"""Action plugin of farmhand_route: converts Ansible's connection to a host into settings for claude-cheap's own ssh."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# The checkout with this plugin also has the package: the versions match, and nothing needs to be installed.
_SOURCE = Path(__file__).resolve().parent.parent / "src"
if (_SOURCE / "farmhand").is_dir() and str(_SOURCE) not in sys.path:
    sys.path.insert(0, str(_SOURCE))

from farmhand.core.errors import WireError  # noqa: E402  (found through the line above)
from farmhand.core.keys import redact  # noqa: E402
from farmhand.plugins.arguments import arguments  # noqa: E402
from farmhand.wire import route  # noqa: E402
from farmhand.wire.transport import Host, SshTransport  # noqa: E402

#: In the order in which Ansible passes them to ssh; for an option given twice, the first value counts.
_TEXTS = ("ssh_args", "ssh_common_args", "ssh_extra_args")
#: Connections to an sshd.
_OVER_SSH = ("ssh", "paramiko", "paramiko_ssh", "libssh")
_UNIVERSAL = {
    "host_key_unknown": "base_known_hosts_file (farmhand_known_hosts_file) names another known_hosts file",
    "host_key_changed": "base_known_hosts_file (farmhand_known_hosts_file) names another known_hosts file",
    "unreachable": "or say the way in ~/.ssh/config, and its alias in ansible_host or base_address",
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible is not typed
    """Compute the entry of a host; nothing runs on the host."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the entry for hosts.json; every failure is one line in `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        host = str(variables.get("inventory_hostname", "this host"))
        given = arguments(self, __file__)
        try:
            entry = self._entry(given, variables, host)
            wanted = bool(given["probe"]) and str(self._connection.transport) in _OVER_SSH
            if wanted:
                self._probe(entry, given["known_hosts_file"], host)
        except WireError as error:
            what = error.as_dict()
            return result | {"failed": True, "msg": redact(str(error)), "error": what}
        return result | {"changed": False, "entry": entry, "probed": wanted}

    def _entry(self, given: dict[str, Any], variables: dict[str, Any], host: str) -> dict[str, Any]:
        """Return the entry for hosts.json. Raise WireError."""
        of_ssh = str(self._connection.transport) == "ssh"
        own_way = bool(given["address"])
        texts = [str(self._connection.get_option(name) or "") for name in _TEXTS] if of_ssh and not own_way else []
        options = self._connection.get_option if of_ssh else variables.get
        address = given["address"] or options("host" if of_ssh else "ansible_host") or host
        port = given["port"] or (0 if own_way else options("port" if of_ssh else "ansible_port")) or 0
        try:
            return route.entry(str(address), int(port), texts)
        except ValueError as error:
            hint = "correct ansible_ssh_common_args, ansible_ssh_extra_args or ansible_ssh_args"
            raise WireError("usage", f"{host}: the arguments of ssh cannot be read: {error}", hint) from None

    def _probe(self, entry: dict[str, Any], known_hosts_file: str, host: str) -> None:
        """Raise WireError if claude-cheap could not reach the host."""
        way = Host(host, **entry)._replace(known_hosts_file=known_hosts_file or None)
        failure = route.probe(SshTransport(way, control_dir=""))
        if failure is None:
            return
        more = _UNIVERSAL.get(failure.code, "")
        message = f"claude-cheap would not reach this host, though Ansible may: {failure.message}"
        raise WireError(failure.code, message, f"{failure.hint}; {more}" if more else failure.hint)
