from __future__ import annotations

from typing import Any

import pytest

from farmhand.core import task as vocabulary
from farmhand.core.errors import WireError
from farmhand.core.ids import new_task_id
from farmhand.wire import follow
from farmhand.wire.client import Client
from farmhand.wire.follow import follow_task, run_task
from tests.unit.wire.scripted import Scripted, answer, events

KEY = "sk-ant-test-follow-0000000000"
TASK = {"id": "t1", "prompt": "p"}
ACCEPTED = answer({"tasks": [{"id": "t1", "state": "queued"}]})
RESULT = {"id": "t1", "state": "succeeded", "text": "ab"}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_PAUSES_S", (0.0,))


def run(agent: Scripted, key: str | None = KEY, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result and the events of one run."""
    seen: list[dict[str, Any]] = []
    with Client(agent) as client:
        return run_task(client, TASK, key, seen.append, **options), seen


def paths(agent: Scripted) -> list[str]:
    """The requests without those for the status."""
    lines = [request.split(b" HTTP")[0].decode() for request in agent.requests]
    return [line for line in lines if line != "GET /v1/status"]


def test_a_task_from_start_to_end() -> None:
    submitted: list[bool] = []
    agent = Scripted([ACCEPTED, events({"type": "text", "text": "ab"}, {"type": "result", "result": RESULT})])
    result, seen = run(agent, on_submitted=lambda: submitted.append(True))
    assert result == RESULT
    assert [event["type"] for event in seen] == ["text", "result"]
    assert submitted == [True]


def test_a_lost_line_is_taken_up_by_id_and_not_run_anew() -> None:
    agent = Scripted(
        [ACCEPTED, events({"type": "text", "text": "a"}, end=False)],
        [b""],
        [events({"type": "text", "text": "ab"}, {"type": "result", "result": RESULT})],
    )
    result, seen = run(agent)
    assert result == RESULT
    assert [event["type"] for event in seen if event["type"] != "restart"] == ["text", "text", "result"]
    assert {"type": "restart", "reason": "reconnected"} in seen
    assert paths(agent).count("POST /v1/tasks") == 1


def test_an_unanswered_submission_is_sent_again_under_the_same_id() -> None:
    agent = Scripted([b""], [ACCEPTED, events({"type": "result", "result": RESULT})])
    assert run(agent)[0] == RESULT
    posts = [request for request in agent.requests if request.startswith(b"POST")]
    assert len(posts) == 2
    assert posts[0] == posts[1]


def test_a_draining_agent_is_waited_for() -> None:
    draining = answer({"error": {"code": "draining", "message": "stops", "hint": ""}}, 503)
    unfinished = events({"type": "result", "result": {"id": "t1", "state": "queued"}})
    agent = Scripted([draining], [ACCEPTED, unfinished], [events({"type": "result", "result": RESULT})])
    assert run(agent)[0] == RESULT


def test_an_agent_that_drains_for_longer_is_given_up() -> None:
    draining = answer({"error": {"code": "draining", "message": "is being emptied", "hint": "end the drain"}}, 503)
    agent = Scripted(*[[draining]] * 200)
    with pytest.raises(WireError, match="is being emptied") as caught:
        run(agent, resume_s=0.05)
    assert caught.value.code == "draining"


def test_a_task_that_waits_for_its_key_gets_it_again() -> None:
    waiting = events({"type": "state", "state": "awaiting_key"}, end=False)
    agent = Scripted([ACCEPTED, waiting], [answer({"fingerprint": "f"}), events({"type": "result", "result": RESULT})])
    assert run(agent)[0] == RESULT
    assert paths(agent)[-2:] == ["PUT /v1/key", "GET /v1/tasks/t1/events"]


def test_without_a_key_a_waiting_task_ends_the_wait() -> None:
    waiting = events({"type": "state", "state": "awaiting_key"}, end=False)
    agent = Scripted([ACCEPTED, waiting], [answer({"task": {"id": "t1", "state": "awaiting_key"}})])
    assert run(agent, key=None)[0]["state"] == "awaiting_key"


def test_an_agent_that_wants_the_key_for_ever_is_given_up() -> None:
    waiting = events({"type": "state", "state": "awaiting_key"}, end=False)
    agent = Scripted([ACCEPTED, waiting], *[[answer({}), waiting]] * 9)
    with pytest.raises(WireError, match="again and again"):
        run(agent)


def test_a_refused_key_is_not_brought_again_and_the_task_is_cancelled() -> None:
    refused = {
        "type": "state",
        "state": "awaiting_key",
        "reason": "billing_error",
        "message": "no credit",
        "hint": "pay",
    }
    agent = Scripted(
        [ACCEPTED, events({"type": "state", "state": "running"}, refused, end=False)],
        [answer({"task": {"id": "t1", "state": "cancelled"}})],
    )
    with pytest.raises(WireError) as caught:
        run(agent)
    assert caught.value.code == "billing_error"
    assert str(caught.value) == "the API refused the key: no credit (pay)"
    assert paths(agent)[-1] == "DELETE /v1/tasks/t1"


def test_a_host_that_was_never_reached_is_not_tried_again() -> None:
    agent = Scripted([b""], [ACCEPTED], greet=False)
    with pytest.raises(WireError) as caught:
        run(agent)
    assert caught.value.code == "unreachable"
    assert len(agent.scripts) == 1


def test_a_line_that_stays_broken_is_given_up_and_the_id_is_told() -> None:
    agent = Scripted([ACCEPTED, events(end=False)], *[[events(end=False)]] * 3)
    with pytest.raises(WireError) as caught:
        run(agent, resume_s=-1.0)
    assert caught.value.code == "lost"
    assert "task t1 goes on there" in caught.value.message
    assert "--id t1" in caught.value.hint


@pytest.mark.parametrize("code", ["invalid_task", "host_key_changed", "agent_too_old"])
def test_what_does_not_pass_is_told_at_once(code: str) -> None:
    agent = Scripted([answer({"error": {"code": code, "message": "no", "hint": ""}}, 400)], [ACCEPTED])
    with pytest.raises(WireError) as caught:
        run(agent)
    assert caught.value.code == code
    assert len(agent.scripts) == 1


def test_ids_fit_the_vocabulary_and_sort_by_time() -> None:
    ids = [new_task_id() for _ in range(200)]
    assert len(set(ids)) == 200
    assert all(vocabulary.TASK_ID.fullmatch(one) for one in ids)
    assert [one[:12] for one in ids] == sorted(one[:12] for one in ids)
    assert vocabulary.FINAL_STATES == follow.FINAL_STATES


def test_a_task_that_has_not_ended_in_time_is_cancelled_and_the_host_named() -> None:
    queued = events({"type": "state", "state": "queued"}, {"type": "ping"}, {"type": "ping"}, end=False)
    cancelled = answer({"task": {"id": "t1", "state": "cancelled"}})
    agent = Scripted([ACCEPTED, queued], [cancelled])
    with pytest.raises(WireError, match="scripted: a task has not ended within 0 s") as caught:
        run(agent, within_s=0.0)
    assert caught.value.code == "not_in_time"
    assert paths(agent)[-1] == "DELETE /v1/tasks/t1"


def test_a_line_that_breaks_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_MAX_BREAKS", 5)
    breaking = events({"type": "text", "text": "a"}, end=False)
    agent = Scripted([ACCEPTED, breaking], *([breaking] for _ in range(50)))
    with pytest.raises(WireError, match="the connection was lost"):
        run(agent)
    assert len(agent.scripts) > 40


def test_a_task_that_is_only_followed_goes_on_after_a_lost_line_and_is_not_submitted() -> None:
    seen: list[dict[str, Any]] = []
    said: list[str] = []
    agent = Scripted(
        [events({"type": "text", "text": "a"}, end=False)],
        [b""],
        [events({"type": "text", "text": "ab"}, {"type": "result", "result": RESULT})],
    )
    with Client(agent) as client:
        found = follow_task(client, "t1", seen.append, on_waiting=lambda error: said.append(error.code))
    assert found == RESULT
    assert [event["type"] for event in seen] == ["text", "restart", "restart", "text", "result"]
    assert said == ["lost", "lost"]
    assert {path.split()[0] for path in paths(agent)} == {"GET"}


def test_a_followed_task_that_waits_for_a_key_is_returned_as_it_is() -> None:
    waiting = events({"type": "state", "state": "awaiting_key"}, end=False)
    agent = Scripted([waiting], [answer({"task": {"id": "t1", "state": "awaiting_key"}})])
    with Client(agent) as client:
        assert follow_task(client, "t1", lambda _event: None)["state"] == "awaiting_key"


def test_each_pause_tells_its_reason() -> None:
    draining = answer({"error": {"code": "draining", "message": "stops", "hint": ""}}, 503)
    agent = Scripted([draining], [draining], [ACCEPTED, events({"type": "result", "result": RESULT})])
    said: list[str] = []
    assert run(agent, on_waiting=lambda error: said.append(str(error)))[0] == RESULT
    assert said == ["stops", "stops"]
