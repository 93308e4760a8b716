"""What `jada-agent task` does on the host, and what its answer may hold; Ctrl-C is in tests/integration/dispatch."""

from __future__ import annotations

import io
import json

import pytest

from farmhand.core.errors import WireError
from farmhand.wire import task_call
from farmhand.wire.client import Client
from tests.unit.wire.scripted import Scripted, answer, events

TASK = {"id": "t1", "prompt": "p"}
KEY = "sk-ant-test-task-call-00000000"
DONE = {"id": "t1", "state": "succeeded", "text": "a"}


def test_prediction() -> None:
    def known(state: str) -> bytes:
        return answer({"tasks": [{"id": "t1", "state": state}]})

    for raws, changed in (
        ([answer({"tasks": []})], True),
        ([known("succeeded"), answer({"task": DONE})], False),
        ([known("running"), answer({"task": {"id": "t1", "state": "running"}})], True),
    ):
        with Client(Scripted(raws)) as client:
            assert task_call.predict(client, TASK)["changed"] is changed
    with Client(Scripted([answer({}, 500)])) as client, pytest.raises(WireError):
        task_call.predict(client, TASK)


def test_performance() -> None:
    def states(state: str) -> bytes:
        return answer({"tasks": [{"id": "t1", "state": state}]})

    result = events({"type": "result", "result": DONE})
    with Client(Scripted([states("succeeded"), result])) as client:
        assert task_call.perform(client, TASK, KEY) == {"changed": False, **DONE}
    # It is sent once: a second time would bring a key again that the API has refused meanwhile.
    with Client(Scripted([states("queued"), result])) as client:
        assert task_call.perform(client, TASK, KEY) == {"changed": True, **DONE}


def printed(said: object) -> str:
    return f"Welcome!\n{task_call.MARK}{json.dumps(said)}\nbye"


def test_an_answer_is_found_in_what_the_host_printed() -> None:
    assert task_call.parse(printed({"changed": True, **DONE, "structured": [1]}), "farm1") == {
        "changed": True,
        **DONE,
        "structured": [1],
    }
    assert task_call.parse("Welcome!\n", "farm1") is None


def test_a_host_gives_ansible_no_orders() -> None:
    orders = {"add_host": {"host_name": "x"}, "ansible_facts": {"a": 1}, "_ansible_no_log": False, "failed": True}
    assert task_call.parse(printed(DONE | orders), "farm1") == DONE


@pytest.mark.parametrize("said", [[], {"changed": 1}, {"cost_usd": 1e9}, {"error": "no"}, {"text": 1}])
def test_what_is_not_of_the_wire_is_refused(said: object) -> None:
    with pytest.raises(WireError, match="its answer is not one of the wire"):
        task_call.parse(printed(said), "farm1")


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("[]", "invalid_call", "Expected `object`"),
        ('{"task": {"id": "t1", "prompt": "p"}}', "invalid_call", "key is missing"),
        ('{"task": {"id": "t1"}, "key": "sk-ant-test-0123456789abcdef"}', "invalid_call", "`prompt`"),
    ],
)
def test_what_is_no_call_is_told_where(call: str, code: str, words: str) -> None:
    target = io.BytesIO()
    assert task_call.main("/nowhere.sock", io.BytesIO(call.encode()), target) == 0
    said = task_call.parse(target.getvalue().decode(), "farm1")
    assert said is not None
    assert said["error"]["code"] == code
    assert words in said["error"]["message"]
    assert "sk-ant" not in said["error"]["message"]
