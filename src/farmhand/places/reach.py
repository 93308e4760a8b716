"""A connection to the first farm host that answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farmhand.core.errors import FarmhandError, FarmUnreachable, WireError
from farmhand.places.hosts import Host
from farmhand.wire.client import Client
from farmhand.wire.transport import ProcessTransport

#: Returns the transport to a host; the number is the connect timeout in seconds.
Way = Callable[[Host, float], ProcessTransport]
#: Connect timeout in seconds while there is another host to try.
FAILOVER_S = 3.0


def reach(
    candidates: Sequence[Host],
    connect_timeout_s: float,
    on_skip: Callable[[FarmhandError], None],
    way: Way = Host.transport,
) -> tuple[Host, Client]:
    """Return the first of `candidates` that answers and takes tasks, and a client connected to it.

    `on_skip` gets the reason for each host that is skipped. `way` returns the transport to a host, for one that is
    already being connected. Only a greeting is sent to any of them, so no task is on two hosts. Raise FarmUnreachable
    with every host's reason if none answers; raise an error in the settings at once.
    """
    failures: list[FarmhandError] = []
    for host in candidates:
        last = host is candidates[-1]
        limit = connect_timeout_s if last else min(connect_timeout_s, FAILOVER_S)
        try:
            return host, _connect(way(host, limit), connect_timeout_s, turn_back=not last)
        except WireError as error:
            failure = error.at(host.name)
            # An answer, whatever it is, concerns only that host; the settings concern all hosts.
            if not error.status and not isinstance(failure, FarmUnreachable):
                raise failure from None
        failures.append(failure)
        if not last:
            on_skip(failure)
    if len(failures) == 1:
        raise failures[0]
    raise FarmUnreachable(f"no farm host answers: {'; '.join(map(str, failures))}", code="unreachable")


def _connect(transport: ProcessTransport, usual_s: float, *, turn_back: bool) -> Client:
    """Return a connected client. With `turn_back`, skip a draining host as well. Raise WireError."""
    client = Client(transport)
    try:
        client.connect()
        if turn_back and client.status().get("state") == "draining":
            raise WireError("draining", f"{transport.name}: the agent is draining and takes no tasks", status=503)
    except BaseException:
        client.close()
        raise
    transport.connect_timeout_s = usual_s
    return client
