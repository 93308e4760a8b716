"""The place `docker`: one worker, the pair of containers on this machine, called from this process."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from farmhand.core.errors import NotConfigured, WireError
from farmhand.core.settings import Settings
from farmhand.core.trace_context import traces_url
from farmhand.core.typed import ready
from farmhand.places import exchange
from farmhand.places.base import Dispatcher, PlaceSettings, TaskRows
from farmhand.places.checkout import find_project
from farmhand.places.containers import ContainerPair, ContainerTransport, PairSettings
from farmhand.wire import turn
from farmhand.wire.client import Client
from farmhand.wire.requests import TurnOrder
from farmhand.wire.transport import Host, ProcessTransport, Transport

NAME = "docker"
#: Rows of one request. More are between two results only where many other tasks have ended.
_MOST_ROWS = 10_000


class DockerHost(Host):
    """The agent in its container, as a host among others; its address is the container's name."""

    def transport(self, connect_timeout_s: float) -> ProcessTransport:
        """Return the transport to the agent."""
        return ContainerTransport(self.address, self.name, connect_timeout_s)


class DockerPlace:
    """One agent, which must run. With `rows` a reply has the rows of its results."""

    name = NAME

    def __init__(self, agent: Transport, *, rows: bool = False) -> None:
        self._agent = agent
        self._rows = rows

    def run(self, batch: Dispatcher) -> None:
        """Run the batch; see Place."""
        while (order := batch.take(NAME, 1)) is not None:
            played = turn.play(msgspec.json.decode(exchange.encode(order), type=TurnOrder), self._agent)
            reply = exchange.reply(played, NAME)
            reply.rows = self._rows_of(reply.results) if self._rows and reply.results else {}
            batch.give(NAME, reply)
        batch.left(NAME, "the batch is over")

    def kill(self) -> None:
        """Do nothing: a call ends with this process."""

    def _rows_of(self, results: list[dict[str, Any]]) -> dict[str, TaskRows]:
        """Return the rows of these results, or of some of them if the agent is lost meanwhile."""
        found: dict[str, TaskRows] = {}
        numbers = [int(result["finish_seq"]) for result in results if "finish_seq" in result]
        with Client(self._agent) as client, contextlib.suppress(WireError, ValueError):
            most = min(max(numbers) - min(numbers) + 1, _MOST_ROWS) if numbers else 0
            ended = client.finished(min(numbers) - 1, most) if numbers else ()
            by_id = {msgspec.json.decode(line, type=ready(_Named)).id: line for line in ended}
            for task_id in (str(result["id"]) for result in results):
                found[task_id] = TaskRows(by_id.get(task_id, b""), tuple(client.charges_of(task_id)))
        return found


class _Named(msgspec.Struct):
    """Whose row it is."""

    id: str


def place(settings: PlaceSettings) -> DockerPlace:
    """Return the place with these settings."""
    conf = settings.conf
    return DockerPlace(host(conf).transport(conf.connect_timeout_s), rows=bool(traces_url(conf.otel_endpoint)))


def host(conf: Settings) -> DockerHost:
    """Return the agent's host, whether it runs or not."""
    return DockerHost(NAME, f"{conf.docker_name}-agent")


def pair(conf: Settings) -> ContainerPair:
    """Return the pair of containers with these settings. Raise NotConfigured."""
    try:
        prices = conf.prices_path.read_text("utf-8")
    except FileNotFoundError:
        prices = ""
    except (OSError, UnicodeDecodeError) as error:
        raise NotConfigured(f"the price file {conf.prices_path} cannot be read: {error}") from None
    checkout = find_project(conf.project_dir, Path.cwd())
    upstream, base = conf.upstream_url, conf.worker_base_image
    return ContainerPair(
        PairSettings(
            checkout=checkout,
            upstream_url=upstream,
            prices=prices,
            name=conf.docker_name,
            base=base,
            wall=conf.worker_wall,
        )
    )


def existing(conf: Settings) -> ContainerPair:
    """Return the pair for what needs no checkout: whether it runs, and its end."""
    return ContainerPair(PairSettings(checkout=Path(), upstream_url="", name=conf.docker_name))
