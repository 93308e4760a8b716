from __future__ import annotations

import json
from typing import Any

import pytest

from farmhand.core.errors import WireError
from farmhand.plugins import drain
from farmhand.wire.client import Client
from tests.unit.wire.scripted import Scripted, answer


def status(drained: str = "off", running: int = 0, queued: int = 0, awaiting_key: int = 0, **more: Any) -> bytes:
    return answer(
        {
            "version": "9.9",
            "state": "running" if drained == "off" else "draining",
            "drain": drained,
            "running": running,
            "queued": queued,
            "awaiting_key": awaiting_key,
            **more,
        }
    )


def test_it_sets_the_mode_and_waits_until_the_host_is_empty() -> None:
    agent = Scripted([status(running=1), answer({"mode": "queue"}), status("queue", running=1), status("queue")])
    with Client(agent) as client:
        said = drain.drain(client, "queue", 10)
    assert (said["changed"], said["before"], said["empty"], said["msg"]) == (
        True,
        "off",
        True,
        "empty: no unfinished task",
    )
    assert agent.requests[2].startswith(b"PUT /v1/drain ")
    assert json.loads(agent.requests[2].partition(b"\r\n\r\n")[2]) == {"mode": "queue"}
    assert drain.difference(said) == {"before": "drain: off\n", "after": "drain: queue\n"}


@pytest.mark.parametrize("mode", drain.MODES)
def test_the_mode_it_has_is_not_set_again(mode: str) -> None:
    agent = Scripted([status(mode), status(mode)])
    with Client(agent) as client:
        assert drain.drain(client, mode)["changed"] is False
    assert not any(request.startswith(b"PUT") for request in agent.requests)


def test_a_check_asks_once_and_says_nothing() -> None:
    agent = Scripted([status("queue", running=2)])
    with Client(agent) as client:
        said = drain.drain(client, "running", 60, check=True)
    assert (said["changed"], said["before"], said["empty"]) == (True, "queue", False)
    assert len(agent.requests) == 2


@pytest.mark.parametrize(
    ("mode", "counts", "empty", "stuck"),
    [
        ("queue", {"awaiting_key": 3}, False, True),
        ("queue", {"awaiting_key": 3, "queued": 1}, False, False),
        ("queue", {"queued": 1}, False, False),
        ("running", {"queued": 5, "awaiting_key": 3}, True, False),
        ("running", {"running": 1}, False, False),
        ("off", {"running": 9}, True, False),
    ],
)
def test_what_a_mode_waits_for(mode: str, counts: dict[str, int], empty: bool, stuck: bool) -> None:
    left = drain.remaining(counts, mode)
    assert (left["empty"], left["stuck"]) == (empty, stuck)


def test_words_for_what_is_left_and_why() -> None:
    waiting = [
        {"reason": "key_refused", "tasks": 3, "detail": "the API refused the key k1"},
        {"reason": "draining", "tasks": 3, "detail": "the host is being emptied"},
    ]
    stuck = drain.remaining({"awaiting_key": 3, "waiting": waiting}, "queue")
    assert stuck["msg"] == "not empty: 3 awaiting a key (the API refused the key k1)"
    assert "without a key" in str(drain.failure(stuck, 60))
    late = drain.remaining({"running": 1, "queued": 2}, "queue")
    assert drain.failure(late, 60) == "not empty: 1 running, 2 queued after 60 s"
    assert drain.failure(late, 0) is None
    assert drain.remaining({"running": 1}, "off")["msg"] == "in service: 1 running"
    assert drain.remaining({"queued": 4, "waiting": waiting}, "running")["msg"] == "empty: 4 queued"


def test_an_agent_that_cannot_be_drained_says_so() -> None:
    route = answer({"error": {"code": "no_such_route", "message": "PUT /v1/drain: Not Found", "hint": ""}}, 404)
    with Client(Scripted([status(), route])) as client, pytest.raises(WireError) as caught:
        drain.drain(client, "queue")
    assert caught.value.code == "cannot_drain"
    assert "9.9" in str(caught.value)
    with Client(Scripted([status(), answer({}, 500)])) as client, pytest.raises(WireError) as other:
        drain.drain(client, "queue")
    assert other.value.code != "cannot_drain"


def test_a_drain_of_unknown_mode_is_not_taken_for_ours() -> None:
    assert drain.drain_mode({"state": "draining"}) == "draining"
    assert drain.drain_mode({"state": "running", "drain": "off"}) == "off"
