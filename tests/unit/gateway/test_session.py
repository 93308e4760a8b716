"""Sessions: whose they are, when they may move, and how long they are remembered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farmhand.gateway import session
from farmhand.gateway.session import Sessions, key, own_words
from farmhand.gateway.turn import Decision, Dialect
from tests.unit.gateway.turns import facts, turn

ID = "0d3c8f6e-1111-4222-8333-444455556666"


@pytest.mark.parametrize(
    "more",
    [
        *({"headers": {name: ID}} for name in session.HEADERS),
        {"fields": {"prompt_cache_key": ID}},
        {"fields": {"metadata": {"user_id": json.dumps({"device_id": "d", "session_id": ID})}}},
        {"fields": {"metadata": {"user_id": f"user_0a_account_1b_session_{ID}"}}},
        {"headers": {"session-id": ID, "x-session-id": "other"}, "fields": {"prompt_cache_key": "third"}},
    ],
)
def test_whoever_names_the_session_it_is_one_and_hashed(more: dict[str, Any]) -> None:
    found = key(turn(**more))
    assert found == key(turn(headers={"x-session-id": ID}))
    assert found
    assert ID not in found


@pytest.mark.parametrize(
    "fields",
    [{}, {"metadata": {}}, {"metadata": {"user_id": "me"}}, {"metadata": 7}, {"prompt_cache_key": 7}],
)
def test_no_session(fields: dict[str, Any]) -> None:
    assert key(turn(fields=fields)) == ""


WORDS = {"role": "user", "content": "go on"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "go on"}]}
RESULT = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "t"}, {"type": "text", "text": "also"}],
}
SYSTEM = {"role": "system", "content": "a reminder of the harness"}


@pytest.mark.parametrize(
    ("dialect", "messages", "own"),
    [
        ("messages", [WORDS], True),
        ("messages", [PARTS], True),
        ("messages", [PARTS, SYSTEM], True),
        ("messages", [PARTS, RESULT], False),
        ("messages", [RESULT, SYSTEM], False),
        ("messages", [WORDS, {"role": "assistant", "content": "I"}], False),
        ("chat", [{"role": "developer", "content": "x"}, WORDS], True),
        ("chat", [WORDS, {"role": "tool", "content": "x", "tool_call_id": "t"}], False),
        ("chat", [WORDS, {"role": "tool", "content": [{"type": "text", "text": "x"}]}], False),
        ("responses", "go on", True),
        ("responses", [WORDS], True),
        ("responses", [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}], True),
        ("responses", [WORDS, {"type": "function_call_output", "call_id": "c", "output": "x"}], False),
        ("messages", [], True),
        ("messages", 7, False),
        ("messages", [7], False),
    ],
)
def test_the_users_own_words(dialect: Dialect, messages: Any, own: bool) -> None:
    name = "input" if dialect == "responses" else "messages"
    assert own_words(turn(dialect, fields={name: messages})) is own
    assert not own_words(turn(dialect))


def decision(session: str, backend: str = "local:qwen", **more: Any) -> Decision:
    return Decision(id="fh-1", backend=backend, residency=None, facts=facts(session=session, **more), rule=1)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_keeps_its_backend_for_an_hour_after_its_last_turn() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    sessions.keep(decision("s"))
    clock.now += 3599
    assert sessions.last(facts(session="s")) == "local:qwen"
    sessions.keep(decision("s", "metered"))
    clock.now += 3599
    assert sessions.last(facts(session="s")) == "metered"
    clock.now += 1
    assert sessions.last(facts(session="s")) == ""
    sessions.keep(decision("t"))
    assert len(sessions) == 1


def test_advice_and_titles_do_not_change_it_and_without_a_session_nothing_is_kept() -> None:
    sessions = Sessions()
    sessions.keep(decision("s"))
    sessions.keep(decision("s", ""))
    sessions.keep(decision("s", "metered", background=True))
    sessions.keep(decision(""))
    assert sessions.last(facts(session="s")) == "local:qwen"
    assert sessions.last(facts()) == ""
    assert len(sessions) == 1


def test_the_longest_idle_of_too_many_is_forgotten() -> None:
    sessions = Sessions()
    for number in range(session.MOST):
        sessions.keep(decision(str(number)))
    sessions.keep(decision("0"))
    sessions.keep(decision("one more"))
    assert len(sessions) == session.MOST
    assert sessions.last(facts(session="0"))
    assert not sessions.last(facts(session="1"))
