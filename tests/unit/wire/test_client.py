from __future__ import annotations

import json

import pytest

from farmhand import __version__
from farmhand.core.errors import WireError
from farmhand.core.keys import REDACTED
from farmhand.wire.client import Client
from farmhand.wire.message import whole_request, whole_response
from tests.unit.wire.scripted import Scripted, answer, events

KEY = "sk-ant-test-client-0000000000"
TASK = {"id": "t1", "prompt": "hé\n"}
RESULT = {"type": "result", "result": {"id": "t1", "state": "succeeded"}}


def test_calls_share_one_connection_and_carry_the_wire_version() -> None:
    agent = Scripted(
        [
            answer({"tasks": [{"id": "t1", "state": "queued"}]}),
            events({"type": "text", "text": "a"}, {"type": "ping"}, RESULT),
            answer({"task": {"id": "t1", "state": "succeeded"}}),
        ]
    )
    with Client(agent) as client:
        assert client.submit([TASK], KEY) == [{"id": "t1", "state": "queued"}]
        assert list(client.events("t1")) == [{"type": "text", "text": "a"}, RESULT]
        assert client.cancel("t1")["state"] == "succeeded"
    first, post, get, delete = agent.requests
    assert all(b"X-Farmhand-Wire: 1\r\n" in request for request in agent.requests)
    assert first.startswith(b"GET /v1/status ")
    assert f"X-Farmhand-Key: {KEY}\r\n".encode() in post
    assert json.loads(post.partition(b"\r\n\r\n")[2]) == {"tasks": [TASK]}
    assert get.startswith(b"GET /v1/tasks/t1/events ")
    assert delete.startswith(b"DELETE /v1/tasks/t1 ")
    assert not any(b"sk-ant" in request for request in (first, get, delete))


def test_an_agent_that_does_not_know_a_field_of_a_task_is_too_old_for_it() -> None:
    said = {"code": "invalid_task", "message": "task 1: Object contains unknown field `files`", "hint": ""}
    with pytest.raises(WireError) as caught, Client(Scripted([answer({"error": said}, 400)])) as client:
        client.submit([TASK | {"files": []}], KEY)
    assert (caught.value.code, caught.value.hint) == ("agent_too_old", "upgrade the farm host: farmhand up")
    assert "unknown field `files`" in caught.value.message


def test_an_agent_that_cannot_count_is_too_old_for_it() -> None:
    # The route of older agents takes `count` for a task's id.
    said = {"code": "no_such_route", "message": "POST /v1/tasks/count: Method Not Allowed", "hint": ""}
    counted = {"id": "t1", "model": "claude-haiku-5-5", "input_tokens": 7}
    with Client(Scripted([answer({"tasks": [counted]}), answer({"error": said}, 405)])) as client:
        assert client.count([TASK], KEY) == [counted]
        with pytest.raises(WireError) as caught:
            client.count([TASK], KEY)
    assert caught.value.code == "agent_too_old"


def test_nothing_is_sent_before_an_agent_has_answered() -> None:
    agent = Scripted([answer({}, wire=None)], greet=False)
    with pytest.raises(WireError) as caught, Client(agent) as client:
        client.submit([TASK], KEY)
    assert caught.value.code == "not_an_agent"
    assert len(agent.requests) == 1
    assert b"sk-ant" not in agent.requests[0]


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (answer({}, wire="0"), "agent_too_old", f"agent 9.9 speaks wire 0, this client {__version__} speaks wire 1"),
        (answer({}, wire="2"), "client_too_old", "agent 9.9 speaks wire 2"),
        (
            answer({"error": {"code": "client_too_old", "message": "wire 1, not 2", "hint": "up"}}, 426, wire="2"),
            "client_too_old",
            "wire 1, not 2",
        ),
        (answer({}, wire="x"), "not_an_agent", "not a jada-agent"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_an_agent", "not a jada-agent"),
        (b"HTTP/1.1 200 OK\r\nX-Farm", "not_an_agent", "not a jada-agent"),
        (b"", "unreachable", "closed without an answer"),
        (answer(b"{", 200), "bad_answer", "is not JSON"),
        (answer(b"[]", 200), "bad_answer", "Expected `object`, got `array`"),
        (answer(b"oops", 500), "agent_error", "HTTP 500"),
        (answer({"error": {"code": "stranger", "message": "uid 7"}}, 403), "stranger", "uid 7"),
    ],
)
def test_a_first_answer_that_is_no_good(raw: bytes, code: str, words: str) -> None:
    with pytest.raises(WireError) as caught, Client(Scripted([raw], greet=False)) as client:
        client.status()
    assert caught.value.code == code
    assert words in str(caught.value)


def test_silence_is_unreachable_within_the_connect_timeout() -> None:
    class Mute(Scripted):
        connect_timeout_s = 0.2

    agent = Mute([b"HTTP/1.1 100 Continue\r\n\r\n", answer({})], greet=False)
    with pytest.raises(WireError, match=r"no answer within 0\.2 s") as caught, Client(agent) as client:
        client.status()
    assert caught.value.code == "unreachable"


def test_the_transport_knows_better_why_a_line_ended() -> None:
    reason = WireError("host_key_changed", "scripted: the host key is not the one on record")
    with pytest.raises(WireError) as caught, Client(Scripted([b""], greet=False, reason=reason)) as client:
        client.status()
    assert caught.value is reason


def test_a_line_that_breaks_in_mid_stream_is_lost() -> None:
    agent = Scripted([events({"type": "text", "text": "a"}, end=False)], [answer({"version": "9.9"})])
    with Client(agent) as client:
        seen: list[object] = []
        with pytest.raises(WireError) as caught:
            seen.extend(client.events("t1"))
        assert caught.value.code == "lost"
        assert client.status() == {"version": "9.9"}


def test_a_line_that_breaks_after_the_result_loses_nothing() -> None:
    with Client(Scripted([events(RESULT, end=False)])) as client:
        assert list(client.events("t1")) == [RESULT]


@pytest.mark.parametrize("other", [{"id": "t2"}, {}])
def test_another_task_s_result_is_none_of_this_one(other: dict[str, str]) -> None:
    result = {"state": "succeeded", **other}
    agent = Scripted([events({"type": "result", "result": result})], [answer({"task": result})] * 2)
    with Client(agent) as client:
        for ask in (lambda: list(client.events("t1")), lambda: client.task("t1"), lambda: client.cancel("t1")):
            with pytest.raises(WireError, match="not of 't1'") as caught:
                ask()
            assert (caught.value.code, agent.name in str(caught.value)) == ("bad_answer", True)


def test_no_secret_comes_in_a_status_or_in_what_is_wrong_with_one() -> None:
    told = {"upstream": "https://jo:hunter2@proxy.example", "waiting": [{"reason": KEY, "detail": KEY}]}
    agent = Scripted([answer(told), answer({"finished": {KEY[:30]: "x"}})])
    with Client(agent) as client:
        assert client.status() == {
            "upstream": "https://…@proxy.example",
            "waiting": [{"reason": REDACTED, "detail": REDACTED}],
        }
        with pytest.raises(WireError) as caught:
            client.status()
    assert "sk-ant-test" not in str(caught.value)


def test_an_error_of_the_agent_keeps_code_hint_and_status_and_no_key() -> None:
    problem = {"error": {"code": "id_conflict", "message": f"other {KEY}", "hint": "new id"}}
    with Client(Scripted([answer(problem, 409)])) as client, pytest.raises(WireError) as caught:
        client.submit([TASK], KEY)
    assert (caught.value.code, caught.value.hint, caught.value.status) == ("id_conflict", "new id", 409)
    assert caught.value.exit_code == 2
    assert KEY not in str(caught.value)


def test_a_closing_agent_is_called_again_on_a_new_connection() -> None:
    agent = Scripted([answer({"task": {"id": "a"}}, close=True)], [answer({"task": {"id": "b"}})])
    with Client(agent) as client:
        assert client.task("a") == {"id": "a"}
        assert client.task("b") == {"id": "b"}


def test_an_early_refusal_of_a_large_body_is_read() -> None:
    class Early(Scripted):
        pass

    problem = {"error": {"code": "too_large", "message": "too large", "hint": ""}}
    with Client(Early([answer(problem, 413, close=True)])) as client, pytest.raises(WireError) as caught:
        client.submit([{"id": "t1", "prompt": "x" * 3_000_000}], KEY)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("key", ["", "sk-ant-short", KEY + "\r\nX-Evil: 1", KEY + "é"])
def test_a_key_cannot_end_its_header_line(key: str) -> None:
    with pytest.raises(WireError) as caught:
        whole_request("PUT", "/v1/key", key=key)
    assert caught.value.code == "bad_key"
    assert "Evil" not in str(caught.value)


def test_the_key_as_one_request_and_its_answer() -> None:
    raw = whole_request("PUT", "/v1/key", key=KEY)
    assert raw.startswith(b"PUT /v1/key HTTP/1.1\r\n")
    assert raw.endswith(b"\r\n\r\n")
    assert b"Connection: close\r\n" in raw
    assert whole_response(answer({"fingerprint": "f"}), "h").read_all(100) == b'{"fingerprint": "f"}'
    for raw in (b"", b"sudo: a password is required\n"):
        with pytest.raises(WireError) as caught:
            whole_response(raw, "h")
        assert caught.value.code == "not_an_agent"


def test_charges_and_finished_come_line_by_line() -> None:
    whole = b'{"charge_id":1,"cost_usd":0.1}\n{"charge_id":2}\n'
    agent = Scripted([events({"charge_id": 8}, {"charge_id": 9}), answer(whole), answer({"tasks": [], "next": None})])
    with Client(agent) as client:
        assert [json.loads(line) for line in client.charges(after=7, limit=2)] == [{"charge_id": 8}, {"charge_id": 9}]
        assert list(client.finished()) == whole.split()
        client.tasks()
    _, charges, finished, _ = agent.requests
    assert charges.startswith(b"GET /v1/charges?after=7&limit=2 ")
    assert finished.startswith(b"GET /v1/finished?after=0&limit=10000 ")


@pytest.mark.parametrize(
    "raw", [events({"charge_id": 1}, end=False), answer(b'{"charge_id":1}\n{"charge_id":2}\n')[:-4]]
)
def test_lines_that_break_off_are_a_lost_connection(raw: bytes) -> None:
    with pytest.raises(WireError) as caught, Client(Scripted([raw])) as client:
        list(client.charges())
    assert caught.value.code == "lost"


def test_an_agent_that_knows_no_charges_says_so() -> None:
    refusal = answer({"error": {"code": "not_found", "message": "no such thing", "hint": ""}}, 404)
    with pytest.raises(WireError) as caught, Client(Scripted([refusal])) as client:
        list(client.charges())
    assert caught.value.code == "not_found"
