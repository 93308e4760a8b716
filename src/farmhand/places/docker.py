"""The place `docker`: one worker, the pair of containers on this machine, called from this process."""

from __future__ import annotations

from pathlib import Path

import msgspec

from farmhand.core.errors import NotConfigured
from farmhand.core.settings import Settings
from farmhand.places import exchange
from farmhand.places.base import Dispatcher, PlaceSettings
from farmhand.places.checkout import find_project
from farmhand.places.containers import ContainerPair, ContainerTransport, PairSettings
from farmhand.wire import turn
from farmhand.wire.requests import TurnOrder
from farmhand.wire.transport import Host, ProcessTransport, Transport

NAME = "docker"


class DockerHost(Host):
    """The agent in its container, as a host among others; its address is the container's name."""

    def transport(self, connect_timeout_s: float) -> ProcessTransport:
        """Return the transport to the agent."""
        return ContainerTransport(self.address, self.name, connect_timeout_s)


class DockerPlace:
    """One agent, which must run."""

    name = NAME

    def __init__(self, agent: Transport) -> None:
        self._agent = agent

    def run(self, batch: Dispatcher) -> None:
        """Run the batch; see Place."""
        while (order := batch.take(NAME, 1)) is not None:
            played = turn.play(msgspec.json.decode(exchange.encode(order), type=TurnOrder), self._agent)
            batch.give(NAME, exchange.reply(played, NAME))
        batch.left(NAME, "the batch is over")

    def kill(self) -> None:
        """Do nothing: a call ends with this process."""


def place(settings: PlaceSettings) -> DockerPlace:
    """Return the place with these settings."""
    return DockerPlace(host(settings.conf).transport(settings.conf.connect_timeout_s))


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
