"""Every answer of `tests/support/answers`, played through the loopback API against the real agent."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any

from farmhand.core.money import usd
from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from tests.support.agent import Agent
from tests.support.answers import CASES, SCHEMA, Case
from tests.support.messages_api import Fault, MessagesApi

MODEL = "claude-haiku-5-5"


def task(case: Case, number: int) -> dict[str, Any]:
    return {
        "id": f"case-{number}",
        "prompt": f"case {number}.",
        "max_usd": "1",
        **({"schema": SCHEMA} if case.schema else {}),
    }


def cost_of(case: Case) -> float | None:
    """What a task costs that got this answer once."""
    if case.factor is None or case.tokens is None:
        return None
    fresh, written, read, output = case.tokens
    usage = Usage(
        input_tokens=fresh, cache_creation_input_tokens=written, cache_read_input_tokens=read, output_tokens=output
    )
    if case.name == "kept an hour":
        usage.cache_creation_1h_input_tokens = 5
    pico = price_table().cost(MODEL, usage)
    assert pico is not None
    return float(usd(int(pico * Decimal(case.factor))))


def stated(case: Case) -> dict[str, Any]:
    """What the case says becomes of the task."""
    return {
        "state": case.state,
        "text": case.text,
        "structured": case.structured,
        "stop_reason": case.stop_reason,
        "code": case.code,
        "requests": case.requests,
        "uncertain": case.uncertain,
        **({} if case.tokens is None else {"tokens": case.tokens}),
        **({} if case.factor == "any" else {"cost": cost_of(case)}),
    }


def found(case: Case, result: dict[str, Any], requests: int) -> dict[str, Any]:
    """What became of it."""
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    return {
        "state": result["state"],
        "text": result["text"],
        "structured": result["structured"],
        "stop_reason": result["stop_reason"],
        "code": (result["error"] or {}).get("code", ""),
        "requests": requests,
        "uncertain": result["uncertain"],
        **({} if case.tokens is None else {"tokens": tuple(result["usage"][name] for name in names)}),
        **({} if case.factor == "any" else {"cost": result["cost_usd"]}),
    }


async def test_each_answer_ends_as_its_case_says_and_no_whole_one_is_paid_twice(agent: Agent, api: MessagesApi) -> None:
    tasks = [task(case, number) for number, case in enumerate(CASES)]
    for one, case in zip(tasks, CASES, strict=True):
        api.fault(Fault(kind="verbatim", match=one["prompt"], answer=case.answer, count=-1))
    await agent.submit(*tasks)
    results = [await agent.result(one["id"]) for one in tasks]
    asked = Counter(json.loads(post.body)["messages"][0]["content"] for post in api.posts)
    wrong = {}
    for case, one, result in zip(CASES, tasks, results, strict=True):
        expected, got = stated(case), found(case, result, asked[one["prompt"]])
        if expected != got:
            wrong[case.name] = {name: (expected[name], got[name]) for name in expected if expected[name] != got[name]}
    assert not wrong, "\n".join(f"{name}: (stated, found) {what}" for name, what in wrong.items())


def test_there_are_enough_cases_and_each_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    whole = [case for case in CASES if case.state == "succeeded"]
    assert len(whole) >= 45
    assert all(case.requests == 1 for case in whole)
