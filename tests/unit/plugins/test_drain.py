from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from farmhand.core.errors import WireError
from farmhand.core.task import DrainMode
from farmhand.plugins import drain
from farmhand.plugins.handover import HostAgent
from tests.unit.wire.scripted import answer


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


class Host:
    """Prints an answer for each `jada-agent bridge`, as a chatty login would show it."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []

    def __call__(self, command: str, in_data: bytes) -> dict[str, Any]:
        assert command == "jada-agent bridge"
        self.requests.append(in_data)
        return {"rc": 0, "stdout": f"Welcome!\n{self.answers.pop(0).decode()}", "stderr": ""}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


def test_it_sets_the_mode_and_waits_until_the_host_is_empty(no_pause: list[float]) -> None:
    busy = status("queue", running=1)
    host, lines = Host(status(running=1), answer({"mode": "queue"}), busy, busy, status("queue")), list[str]()
    said = drain.drain(HostAgent(host, "farm1"), "queue", 10, say=lines.append)
    assert (said["changed"], said["before"], said["empty"], said["msg"]) == (
        True,
        "off",
        True,
        "empty: no unfinished task",
    )
    assert host.requests[1].startswith(b"PUT /v1/drain ")
    assert json.loads(host.requests[1].partition(b"\r\n\r\n")[2]) == {"mode": "queue"}
    assert said["diff"] == {"before": "drain: off\n", "after": "drain: queue\n"}
    assert (lines, no_pause) == (["1 running; 0 of 10 s"], [0.5, 1.0])


@pytest.mark.parametrize("mode", get_args(DrainMode))
def test_the_mode_it_has_is_not_set_again(mode: str) -> None:
    host = Host(status(mode))
    assert drain.drain(HostAgent(host, "farm1"), mode)["changed"] is False
    assert not any(request.startswith(b"PUT") for request in host.requests)


def test_a_check_asks_once_and_says_nothing() -> None:
    host = Host(status("queue", running=2))
    said = drain.drain(HostAgent(host, "farm1"), "running", 60, check=True)
    assert (said["changed"], said["before"], said["empty"]) == (True, "queue", False)
    assert len(host.requests) == 1


def test_the_key_is_brought_once_to_what_awaits_it() -> None:
    stuck, brought = status("queue", awaiting_key=1), list[bool]()
    agent = HostAgent(Host(stuck, status("queue", queued=1), status("queue")), "farm1")
    assert drain.drain(agent, "queue", 10, bring_key=lambda: brought.append(True))["empty"] is True
    agent = HostAgent(Host(stuck, stuck), "farm1")
    said = drain.drain(agent, "queue", 10, bring_key=lambda: brought.append(True))
    assert (said["stuck"], brought) == (True, [True, True])
    assert str(drain.failure(said, 10)).endswith(drain._NO_KEY)

    def missing() -> None:
        raise WireError("not_configured", "no key file")

    said = drain.drain(HostAgent(Host(stuck), "farm1"), "queue", 10, bring_key=missing)
    assert str(drain.failure(said, 10)).endswith(f"{drain._NO_KEY} (no key file)")


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
    with pytest.raises(WireError) as caught:
        drain.drain(HostAgent(Host(status(), route), "farm1"), "queue")
    assert caught.value.code == "cannot_drain"
    assert "9.9" in str(caught.value)
    with pytest.raises(WireError) as other:
        drain.drain(HostAgent(Host(status(), answer({}, 500)), "farm1"), "queue")
    assert other.value.code != "cannot_drain"


def test_a_drain_of_unknown_mode_is_not_taken_for_ours() -> None:
    assert drain.drain_mode({"state": "draining"}) == "draining"
    assert drain.drain_mode({"state": "running", "drain": "off"}) == "off"
