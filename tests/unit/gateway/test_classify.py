"""The facts of a turn: its class and where that comes from, and that no text gets among them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from farmhand.gateway import policy
from farmhand.gateway.classify import facts
from farmhand.gateway.config import parse
from farmhand.gateway.labels import headers_of
from farmhand.gateway.turn import BadRequest, Carries, Facts, Turn
from tests.unit.gateway.turns import local, turn

CONFIG = parse(
    '[local.qwen]\nurl = "http://127.0.0.1:1"\n[aliases]\n'
    'qwen = { backend = "local:qwen" }\nboth = { class = "review", backend = "local:qwen" }'
)
TOOLS = Carries(tools=12)


def of(given: Turn, path: str | None = None) -> Facts:
    return facts(given, path, CONFIG)


@pytest.mark.parametrize(
    ("given", "path", "work_class", "source"),
    [
        (turn(), None, "chat", "derived"),
        (turn(carries=TOOLS), None, "agent", "derived"),
        (turn(carries=Carries(hosted_tools=("web_search_20250305",))), None, "agent", "derived"),
        (turn(carries=Carries(tool_history=True)), None, "agent", "derived"),
        (turn(), "quick-edit", "quick-edit", "path"),
        (turn(model="plan"), "quick-edit", "planning", "alias"),
        (turn(model="farmhand/plan"), None, "planning", "alias"),
        (turn(model="claude-farmhand-agent"), None, "agent", "alias"),
        (turn(model="both"), "chat", "review", "alias"),
        (turn(model="claude-farmhand-other"), None, "chat", "derived"),
        (turn(model="claude-opus-4-6"), None, "chat", "derived"),
        (turn(model="plan", headers={"x-farmhand-work-class": "review"}), "chat", "review", "header"),
        (turn(carries=TOOLS, headers={"x-farmhand-work-class": "planning"}), None, "planning", "header"),
        (turn(carries=TOOLS, model="qwen"), None, "agent", "derived"),
    ],
)
def test_the_class_and_where_it_comes_from(given: Turn, path: str | None, work_class: str, source: str) -> None:
    found = of(given, path)
    assert (found.work_class, found.class_source) == (work_class, source)


@pytest.mark.parametrize(
    ("model", "backend"), [("qwen", "local:qwen"), ("farmhand/qwen", "local:qwen"), ("plan", None)]
)
def test_an_alias_may_name_the_backend(model: str, backend: str | None) -> None:
    assert of(turn(model=model)).backend == backend


@pytest.mark.parametrize(
    ("headers", "path", "said"),
    [
        ({"x-farmhand-work-class": "plannning"}, None, "X-Farmhand-Work-Class: 'plannning' is not one of planning, "),
        ({"x-farmhand-work-class": ""}, None, "X-Farmhand-Work-Class: '' is not one of"),
        ({"x-farmhand-residency": "cloud"}, None, "X-Farmhand-Residency: 'cloud' is not one of local, subscription"),
        ({}, "thinking", "/c/: 'thinking' is not one of"),
    ],
)
def test_a_name_that_is_none_is_refused_and_not_guessed(headers: dict[str, str], path: str | None, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        of(turn(headers=headers), path)


@pytest.mark.parametrize(
    ("carries", "tokens", "background"),
    [
        (Carries(schema=True), 900, True),
        (Carries(schema=True), 4001, False),
        (Carries(schema=True, tools=1), 900, False),
        (Carries(schema=True, tool_history=True), 900, False),
        (Carries(), 900, False),
    ],
)
def test_a_request_of_the_harness_for_itself(carries: Carries, tokens: int, background: bool) -> None:
    assert of(turn(carries=carries, tokens=tokens)).background is background


def test_the_rest_is_taken_as_it_is() -> None:
    found = of(turn("responses", tokens=16_800, max_tokens=9, headers={"x-farmhand-residency": "local"}, carries=TOOLS))
    assert (found.dialect, found.tokens, found.max_tokens, found.only) == ("responses", 16_800, 9, "local")
    assert found.carries == TOOLS


def test_only_a_session_can_be_amid_something() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]}
    assert of(turn(fields=body)).may_move
    assert not of(turn(fields=body, headers={"x-session-id": "s"})).may_move
    assert of(turn(fields={"messages": []}, headers={"x-session-id": "s"})).may_move


CANARY = "canary bird"


def test_two_prompts_of_one_size_are_one_decision() -> None:
    """H6: what is decided is the same for every text, and none of it is in the facts."""

    def decided(text: str) -> Any:
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": text}],
            "system": text,
            "tools": [{"name": text, "type": text}],
            "metadata": {"user_id": "user_a_session_b"},
        }
        given = turn(fields=body, model=text, carries=Carries(tools=1, hosted_tools=(text,)))
        return policy.decide(facts(given, None, CONFIG), (local(),), CONFIG.rules, "", "fh-1")

    first, second = decided(CANARY), decided("another one")
    assert first == second
    assert CANARY.encode() not in msgspec.json.encode(first)
    assert first.facts.carries.hosted_tools == ("other",)


@pytest.mark.parametrize("name", ["X-Farmhand-Work-Class", "X-Farmhand-Residency", "X-Farmhand-Project"])
def test_a_header_of_ours_that_is_there_twice_is_refused_by_its_name(name: str) -> None:
    """Which one counted would be chance: a proxy in front may have added one."""
    twice = make_mocked_request("POST", "/", CIMultiDict([(name, "chat"), ("X-A", "1"), (name.lower(), "chat")]))
    with pytest.raises(BadRequest, match=f"{name}: it is there more than once"):
        headers_of(twice)
    once = make_mocked_request("POST", "/", CIMultiDict([(name, "chat"), ("X-A", "1"), ("x-a", "2")]))
    assert headers_of(once) == {name.lower(): "chat", "x-a": "2"}
