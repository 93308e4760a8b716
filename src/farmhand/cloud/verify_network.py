"""What a verify order sees of the network: the API, everything else, and the names of the endpoints.

Nothing is sent but one request without a key, which the API refuses and charges nothing for.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from farmhand.cloud.calls import region
from farmhand.core.settings import UPSTREAM
from farmhand.core.shard import UPSTREAM as UPSTREAM_VARIABLE
from farmhand.core.shard import VerifyOrder, VerifyRow

_WAIT_S = 5.0
_NAMES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
#: Public addresses that are not the API's, one of each family: a resolver's.
_ELSEWHERE = (("1.1.1.1", 443), ("2606:4700:4700::1111", 443))
#: The services with an interface endpoint in a private network: see aws/network.yaml.
_ENDPOINTS = ("api.ecr", "secretsmanager", "logs")


def network_rows(order: VerifyOrder) -> list[VerifyRow]:
    """Return what is seen of the network."""
    given = urlsplit(os.environ.get(UPSTREAM_VARIABLE) or UPSTREAM)
    host, tls = given.hostname or "", given.scheme == "https"
    port = given.port or (443 if tls else 80)
    seen = {family: _asked(host, port, family, tls=tls) for family in _NAMES}
    answered = any(good for good, _ in seen.values())
    both = "; ".join(f"{_NAMES[family]}: {said}" for family, (_, said) in seen.items())
    six, said = seen[socket.AF_INET6]
    needed = order.network == "private" and not order.ipv4
    return [
        VerifyRow(name="the API", verdict="passed" if answered else "failed", seen=f"{host}: {both}"),
        VerifyRow(
            name="the API by IPv6",
            verdict="passed" if six else "failed" if needed else "not known",
            seen=said if needed or six else f"{said}; this network does not need it",
        ),
        _row("no way elsewhere", order, _elsewhere),
        _row("names of the endpoints", order, _private_names),
    ]


def _row(name: str, order: VerifyOrder, look: Callable[[], tuple[bool, str]]) -> VerifyRow:
    if order.network != "private":
        return VerifyRow(
            name=name, verdict="not known", seen=f"the network is {order.network}, which does not promise it"
        )
    good, said = look()
    return VerifyRow(name=name, verdict="passed" if good else "failed", seen=said)


def _asked(host: str, port: int, family: socket.AddressFamily, *, tls: bool) -> tuple[bool, str]:
    """Return whether the API answers over this family, and the first line of its answer or the error."""
    try:
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
        with socket.socket(family, socket.SOCK_STREAM) as plain:
            plain.settimeout(_WAIT_S)
            plain.connect(address)
            line = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if tls else plain
            with line:
                line.sendall(f"GET /v1/models HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
                said = line.recv(200).split(b"\r\n")[0].decode("ascii", "replace")
    except OSError as error:
        return False, _reason(error)
    return said.startswith("HTTP/1."), said or "it closed the connection"


def _elsewhere() -> tuple[bool, str]:
    reached = []
    for address in _ELSEWHERE:
        try:
            socket.create_connection(address, _WAIT_S).close()
            reached.append(address[0])
        except OSError:
            pass
    asked = " and ".join(address for address, _ in _ELSEWHERE)
    return not reached, f"reached: {', '.join(reached)}" if reached else f"{asked}, port 443: not reached"


def _private_names() -> tuple[bool, str]:
    good, seen = True, []
    for service in _ENDPOINTS:
        host = f"{service}.{region()}.amazonaws.com"
        try:
            found = {str(info[4][0]) for info in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)}
        except OSError as error:
            good, found = False, {_reason(error)}
        else:
            good = good and all(ipaddress.ip_address(address).is_private for address in found)
        seen.append(f"{host} is {', '.join(sorted(found))}")
    return good, "; ".join(seen)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
