"""A turn as the host plays it, against an agent that says what a test wants."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest

from farmhand.core.errors import WireError
from farmhand.wire import turn
from farmhand.wire.client import Client
from farmhand.wire.requests import TurnOrder
from tests.unit.wire.scripted import STATUS, Scripted, answer

SLOTS = answer(STATUS | {"slots": {"api": {"total": 2, "free": 2}}})
TASKS = [{"id": name, "prompt": "p"} for name in "abc"]


def results(*ids: str, unfinished: int = 0, after: int = 0, waiting: list[Any] | None = None) -> bytes:
    found = [{"id": task_id, "state": "succeeded", "text": "t"} for task_id in ids]
    body = {"results": found, "next": after + len(ids), "unfinished": unfinished, "waiting": waiting or []}
    return answer(body)


def refusal(code: str, status: int) -> bytes:
    return answer({"error": {"code": code, "message": f"it is {code}", "hint": ""}}, status)


def states(*ids: str, state: str = "queued") -> bytes:
    return answer({"tasks": [{"id": task_id, "state": state} for task_id in ids]})


def play(*script: bytes, **about: Any) -> tuple[dict[str, Any], list[bytes]]:
    transport = Scripted(list(script))
    with Client(transport) as client:
        playing = turn._Turn(client, msgspec.convert({"batch": "b", "after": 0, "wait_s": 0.2, **about}, TurnOrder))
        playing.run()
    return playing.answer, [request.split(b"\r\n")[0] for request in transport.requests[1:]]


def test_cancel_limits_key_and_tasks_go_in_this_order() -> None:
    said, requests = play(
        states("x", state="cancelled"),
        answer({"batch": {}}),
        states("a", "b", "c"),
        results("a", "b", "c"),
        results(after=3),
        SLOTS,
        cancel=["x"],
        limits={"max_usd": 1.0, "concurrency": None},
        tasks=TASKS,
        key="sk-ant-test-turn-00000000",
    )
    assert [request.split()[1].split(b"?")[0] for request in requests] == [
        b"/v1/tasks/cancel",
        b"/v1/batches/b",
        b"/v1/tasks",
        b"/v1/results",
        b"/v1/results",
        b"/v1/status",
    ]
    assert (said["cancelled"], said["taken"], said["next"], said["rest"]) == (["x"], ["a", "b", "c"], 3, False)
    assert said["slots"]["api"]["total"] == 2
    assert len(said["results"]) == 3


def test_one_refused_task_does_not_keep_the_others_out() -> None:
    said, _ = play(
        refusal("invalid_task", 400),
        states("a"),
        refusal("id_conflict", 409),
        refusal("id_conflict", 409),
        states("c"),
        results(unfinished=2),
        SLOTS,
        tasks=TASKS,
        low=5,
    )
    assert said["taken"] == ["a", "c"]
    assert [(one["id"], one["code"]) for one in said["refused"]] == [("b", "id_conflict")]


@pytest.mark.parametrize(("code", "status"), [("draining", 503), ("budget", 403), ("ledger_full", 507)])
def test_a_host_that_takes_nothing_is_not_asked_task_by_task(code: str, status: int) -> None:
    said, _ = play(refusal(code, status), results(unfinished=1), SLOTS, tasks=TASKS, low=1)
    assert said["halted"]["code"] == code
    assert (said["taken"], said["refused"]) == ([], [])


def test_what_had_ended_before_is_fetched() -> None:
    ended = answer({"tasks": [{"id": "a", "state": "succeeded"}, {"id": "b", "state": "failed"}]})
    said, _ = play(
        ended,
        answer({"task": {"id": "a", "state": "succeeded"}}),
        refusal("pruned", 410),
        results(),
        SLOTS,
        tasks=TASKS,
    )
    assert [result["id"] for result in said["results"]] == ["a"]
    assert [(one["id"], one["code"]) for one in said["refused"]] == [("b", "pruned")]


def test_it_returns_when_few_are_left_or_the_key_is_wanted() -> None:
    said, requests = play(results("a", unfinished=3), results(unfinished=2), SLOTS, low=2, wait_s=30)
    assert (said["unfinished"], len(requests)) == (2, 3)
    wanted = [{"reason": "no_key", "tasks": 1}]
    said, requests = play(results(unfinished=9, waiting=wanted), SLOTS, wait_s=30)
    assert (said["waiting"], len(requests)) == (wanted, 2)


def test_a_batch_that_the_agent_does_not_know_has_no_results() -> None:
    said, _ = play(refusal("no_such_batch", 404), SLOTS, after=7)
    assert (said["results"], said["next"], said["unfinished"]) == ([], 7, 0)


def test_a_stop_cancels_what_has_not_started() -> None:
    said, requests = play(
        states("a", "b"),
        answer({"tasks": [{"id": "a", "state": "cancelled"}, {"id": "b", "state": "running"}]}),
        states(),
        states(),
        results(unfinished=1),
        SLOTS,
        stop=True,
        low=1,
    )
    assert said["stopped"] == ["a"]
    assert b"state=queued" in requests[0]
    assert b"state=awaiting_key" in requests[3]


def test_the_answer_is_found_among_what_a_login_says_and_an_error_keeps_what_there_is() -> None:
    target = io.BytesIO()
    assert turn.main("/nowhere.sock", io.BytesIO(b'{"batch": "b"}'), target) == 0
    printed = turn.answer_in("Welcome!\n" + target.getvalue().decode() + "bye\n")
    assert printed is not None
    said = turn.check(printed, "farm1")
    assert said["error"]["code"] == "agent_missing"
    assert said["results"] == []
    assert turn.answer_in("nothing of it") is None
    for wrong in ("[1]", "{", '{"results": [{"id": "a", "state": "succeeded", "cost_usd": -1000}]}'):
        with pytest.raises(WireError, match="farm1: its answer is not one of the wire") as caught:
            turn.check(wrong.encode(), "farm1")
        assert caught.value.code == "bad_answer"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"[]", "Expected `object`"),
        (b"", "truncated"),
        (b"[" * 200_000, ""),
        (b"{}", "missing required field `batch`"),
        (b'{"batch": "b", "key": ["sk-ant-test-0123456789abcdef"]}', "$.key"),
        (b'{"batch": "b", "after": 1e400}', "$.after"),
        (b'{"batch": "b", "wait_s": -1}', "$.wait_s"),
        (b'{"batch": "b", "limits": 5}', "$.limits"),
        (b'{"batch": "b", "tasks": [5]}', "$.tasks"),
        (b'{"batch": "b", "tasks": [{"id": "a", "prompt": "\\ud800"}]}', ""),
    ],
)
def test_what_is_no_turn_is_told_where(given: bytes, words: str) -> None:
    target = io.BytesIO()
    assert turn.main("/nowhere.sock", io.BytesIO(given), target) == 0
    printed = turn.answer_in(target.getvalue().decode())
    assert printed is not None
    error = turn.check(printed, "farm1")["error"]
    assert error["code"] == "invalid_turn"
    assert words in error["message"]
    assert "sk-ant" not in error["message"]
