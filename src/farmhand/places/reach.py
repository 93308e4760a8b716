"""A connection to the first farm host that answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farmhand.core.errors import FarmhandError, FarmUnreachable, WireError
from farmhand.places.hosts import Host
from farmhand.wire.client import Client
from farmhand.wire.transport import SshTransport

#: While there is another host to turn to, a silent one gets this long. Seconds.
FAILOVER_S = 3.0


def reach(
    candidates: Sequence[Host],
    connect_timeout_s: float,
    on_skip: Callable[[FarmhandError], None],
    way: Callable[[Host, float], SshTransport] | None = None,
) -> tuple[Host, Client]:
    """The first of `candidates` that answers and takes tasks, and a client connected to it.

    `on_skip` gets the reason for each that is passed over. `way` gives the transport to a host, for one that is on its
    way already. Nothing but a greeting is sent to any of them, so no task is
    at two. Raises FarmUnreachable with every host's reason if none answers; what is wrong with the settings, at once.
    """
    failures: list[FarmhandError] = []
    for number, host in enumerate(candidates, start=1):
        last = number == len(candidates)
        try:
            limit = connect_timeout_s if last else min(connect_timeout_s, FAILOVER_S)
            transport = host.transport(limit) if way is None else way(host, limit)
            return host, _connect(transport, connect_timeout_s, turn_back=not last)
        except WireError as error:
            failure = error.at(host.name)
            # What a host answers, whatever it is, is that host's problem; the settings are everybody's.
            if not error.status and not isinstance(failure, FarmUnreachable):
                raise failure from None
        failures.append(failure)
        if not last:
            on_skip(failure)
    if len(failures) == 1:
        raise failures[0]
    raise FarmUnreachable(f"no farm host answers: {'; '.join(map(str, failures))}", code="unreachable")


def _connect(transport: SshTransport, usual_s: float, *, turn_back: bool) -> Client:
    """A connected client. With `turn_back` a host that is draining is passed over as well. Raises WireError."""
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
