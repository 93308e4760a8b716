from __future__ import annotations

import threading
from typing import Any

import pytest

from farmhand.core.errors import WireError
from farmhand.places import watch as module
from farmhand.places.hosts import Host
from farmhand.places.watch import HostWatch
from tests.unit.cli.test_status import STATUS


class FakeClient:
    """Answers with a status; `breaks` calls are lost first."""

    made = 0
    closed = 0
    breaks = 0

    def __init__(self, _transport: Any) -> None:
        type(self).made += 1

    def status(self) -> dict[str, Any]:
        if type(self).breaks:
            type(self).breaks -= 1
            raise WireError("lost", "the connection was lost")
        return {**STATUS, "throughput": {"per_s": 2.5}}

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    fresh = type("Fresh", (FakeClient,), {})
    monkeypatch.setattr(module, "Client", fresh)
    return fresh


def watch(name: str = "farm1") -> HostWatch:
    return HostWatch(name, Host(name=name, address=name), 1.0)


def test_one_connection_is_kept_and_made_again_when_it_is_lost(client: type[FakeClient]) -> None:
    host = watch()
    host.ask()
    host.ask()
    assert (client.made, client.closed, host.error) == (1, 0, None)
    client.breaks = 1
    host.ask()
    assert (client.closed, str(host.error)) == (1, "farm1: the connection was lost")
    assert host.status is not None  # the last figures stay
    host.ask()
    assert (client.made, host.error) == (2, None)
    assert list(host.per_s) == [2.5, 2.5, 2.5]


def test_following_ends_when_told_and_closes(client: type[FakeClient]) -> None:
    stop = threading.Event()
    host = watch()
    thread = threading.Thread(target=host.follow, args=(60.0, stop))
    thread.start()
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert client.closed == client.made
