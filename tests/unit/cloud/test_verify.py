"""What a look at the containers makes of what the probe could do, and of the network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from farmhand.aws.places.live_check import ROWS
from farmhand.cloud import probe, verify, verify_network
from farmhand.core import shard
from farmhand.core.shard import VerifyOrder

REFUSED = dict.fromkeys(probe.rows(1), ("refused", "PermissionError 1"))
WALL = REFUSED | {verify.METER: ("open", "HTTP/1.1 401")}
OPEN = dict.fromkeys(REFUSED, ("open", "made"))


def verdicts(wall: verify.Outcome, control: verify.Outcome) -> dict[str, str]:
    return {row.name: row.verdict for row in verify.wall_rows(wall, control)}


def test_every_row_of_the_probe_is_judged_once() -> None:
    judged = [name for tries in verify.WALL.values() for name in tries]
    assert sorted([*judged, verify.METER]) == sorted(probe.rows(1))
    assert all(set(tries) <= set(verify.WALL[name]) for name, tries in verify.CONTROL.items())
    assert set(verify.WALL) <= set(ROWS)


def test_a_wall_that_holds() -> None:
    assert set(verdicts(WALL, OPEN).values()) == {"passed"}


@pytest.mark.parametrize("name", sorted(set(REFUSED) - {verify.METER}))
@pytest.mark.parametrize("outcome", [("open", "made"), ("broken", "KeyError")])
def test_one_row_that_is_not_refused_fails(name: str, outcome: tuple[str, str]) -> None:
    group = next(group for group, tries in verify.WALL.items() if name in tries)
    found = verdicts(WALL | {name: outcome}, OPEN)
    assert [row for row, verdict in found.items() if verdict == "failed"] == [group]


def test_a_refusal_that_is_not_the_walls_is_not_known() -> None:
    found = verdicts(WALL, REFUSED)
    assert {row for row, verdict in found.items() if verdict == "not known"} == set(verify.CONTROL)


def test_a_probe_that_did_not_run_fails_and_says_why() -> None:
    rows = verify.wall_rows({}, {verify.METER: ("refused", "the probe did not run: no sandbox")})
    assert {(row.verdict, row.seen) for row in rows} == {("failed", "the probe did not run: no sandbox")}


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Something on loopback that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv(shard.UPSTREAM, f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setattr(verify_network, "_WAIT_S", 0.2)
        yield listener


def rows(monkeypatch: pytest.MonkeyPatch, *, closed: bool, **order: object) -> dict[str, str]:
    """The verdicts, in a network that is `closed`: only then no other address is reached, and names are private."""
    look_up = socket.getaddrinfo

    def connect(*_: object) -> socket.socket:
        if closed:
            raise OSError("unreachable")
        return socket.socket()

    def looked_up(host: str, *more: Any, **named: Any) -> Any:
        if not host.endswith(".amazonaws.com"):
            return look_up(host, *more, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.0.0.7" if closed else "52.0.0.7", 443))]

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    made = VerifyOrder(environment="try", farmhand="0", **order)  # type: ignore[arg-type]
    return {row.name: row.verdict for row in verify_network.network_rows(made)}


def test_a_private_network_promises_more_than_a_public_one(
    monkeypatch: pytest.MonkeyPatch, upstream: socket.socket
) -> None:
    silent = {"the API": "failed", "the API by IPv6": "failed"}
    closed = {"no way elsewhere": "passed", "names of the endpoints": "passed"}
    assert rows(monkeypatch, closed=True) == silent | closed
    assert rows(monkeypatch, closed=False) == silent | dict.fromkeys(closed, "failed")
    assert rows(monkeypatch, closed=True, ipv4=True)["the API by IPv6"] == "not known"
    public = rows(monkeypatch, closed=False, network="public")
    assert (public.pop("the API"), set(public.values())) == ("failed", {"not known"})
