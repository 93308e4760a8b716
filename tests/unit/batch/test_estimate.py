"""What a batch may cost, before it is begun."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farmhand.batch import estimate as estimates
from farmhand.batch.estimate import MOST_BYTES, MOST_COUNTED, PlannedTask, TokenCounter, estimate
from farmhand.core.errors import WireError
from farmhand.core.prices import price_table
from farmhand.core.task import EarlierTurn

TABLE = price_table()
KEY = "sk-ant-test-estimate-0000"


class Counting(TokenCounter):
    """A token for two bytes of the prompt, and how many were asked for."""

    def __init__(self, why: str = "") -> None:
        self.asked = 0
        self._why = why

    def count(self, tasks: list[PlannedTask]) -> tuple[list[int | None], str]:
        self.asked += len(tasks)
        return [None if self._why else task.size // 2 for task in tasks], self._why


def bodies(tasks: list[dict[str, Any]]) -> Any:
    """The fields of tasks as the journal has them."""
    return lambda: iter([json.dumps(task).encode()[1:] for task in tasks])


def test_all_of_a_few_tasks_are_counted() -> None:
    found = estimate(bodies([{"prompt": "x" * 2000, "max_tokens": 100}] * 3), TABLE, Counting())
    assert (found.tasks, found.tokens, found.counted, found.most_output) == (3, 3000, 3, 300)
    # haiku: 0.10 and 0.50 a million tokens.
    assert (found.own.sent_pico, found.own.most_pico) == (3000 * 10**5, 3000 * 10**5 + 300 * 5 * 10**5)
    prices = {(one.model, one.economy): one.most_pico for one in found.prices}
    assert prices["", True] == (found.own.most_pico or 0) // 2
    assert prices["sonnet", False] == 3000 * 2 * 10**6 + 300 * 10**7
    assert ("haiku", False) not in prices


def test_of_many_a_few_are_counted_and_the_rest_reckoned() -> None:
    counter = Counting()
    found = estimate(bodies([{"prompt": "x" * 2000}] * 1000), TABLE, counter)
    assert counter.asked == found.counted <= MOST_COUNTED
    assert abs(found.tokens - 1_000_000) <= 1000


def test_what_is_sent_to_be_counted_is_bounded() -> None:
    counter = Counting()
    found = estimate(bodies([{"prompt": "x" * (MOST_BYTES // 2)}] * 3 + [{"prompt": "xx"}]), TABLE, counter)
    assert counter.asked == found.counted == 2
    assert found.tokens > MOST_BYTES // 2
    alone = estimate(bodies([{"prompt": "x" * MOST_BYTES}]), TABLE, Counting())
    assert (alone.counted, alone.uncounted) == (0, "the prompts are too large")


def test_what_is_not_counted_is_estimated_and_says_why() -> None:
    found = estimate(bodies([{"prompt": "x" * 3500}]), TABLE, Counting("no route"))
    assert (found.counted, found.tokens, found.uncounted) == (0, 1001, "no route")
    assert estimate(bodies([]), TABLE, Counting()).tasks == 0


def test_earlier_turns_and_files_are_in_it() -> None:
    asked = {"prompt": "x" * 35, "history": [{"prompt": "y" * 350, "answer": "z" * 3500}]}
    assert estimate(bodies([asked]), TABLE).tokens == round((35 + 350 + 3500) / 3.5) + 1
    pictures = [{"media_type": "image/png", "data": "A" * n} for n in (70, 10**6)]
    assert 4800 < estimate(bodies([{"prompt": "x", "files": pictures}]), TABLE).tokens < 4820
    whole = PlannedTask(prompt="x", history=(EarlierTurn(prompt="a", answer="b"),)).request()["messages"]
    assert [message["role"] for message in whole] == ["user", "assistant", "user"]


def test_a_long_prompt_has_the_prices_of_one() -> None:
    long = {"prompt": "x" * 400_000, "max_tokens": 1}
    found = estimate(bodies([long, {"prompt": "ab", "max_tokens": 1}]), TABLE, Counting())
    assert found.own.most_pico == (200_000 * 5 + 1) * 10**5 + 25 * 10**5 + 5 * 10**5


def test_models_economy_and_tools_of_the_lines_count() -> None:
    found = estimate(
        bodies([{"prompt": "xx", "model": "sonnet"}, {"prompt": "xx", "tools": ["Bash"]}]), TABLE, Counting()
    )
    assert (found.open_tasks, found.most_pico) == (1, None)
    assert not any(one.economy for one in found.prices)
    assert {one.model for one in found.prices} == {"", "haiku", "sonnet", "opus"}
    half = estimate(bodies([{"prompt": "xx", "economy": True}]), TABLE, Counting())
    assert [one.economy for one in half.prices if not one.model] == [False]
    unknown = estimate(bodies([{"prompt": "xx", "model": "claude-next"}]), TABLE, Counting())
    assert (unknown.own.sent_pico, unknown.most_pico) == (None, None)


def test_the_provider_is_asked_as_it_wants_and_its_answer_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    answers: list[Any] = [
        (200, {"input_tokens": 7}),
        (200, {"input_tokens": "x"}),
        (429, {"error": {"message": "slow"}}),
    ]

    def call(key: str, url: str, path: str, body: dict[str, Any], timeout_s: float) -> Any:
        asked.append((key, url, path, body))
        assert timeout_s > 0
        if not answers:
            raise WireError("api_unreachable", "no route", "")
        return answers.pop(0)

    monkeypatch.setattr(estimates, "call", call)
    counter = TokenCounter(KEY, "https://api.test")
    task = PlannedTask(prompt="p", system="s", schema={"type": "object"})
    assert counter.count([task]) == ([7], "")
    assert counter.count([task]) == ([None], "https://api.test answered 200: no reason given")
    assert counter.count([task]) == ([None], "https://api.test answered 429: slow")
    assert counter.count([task]) == ([None], "no route")
    assert asked[0][2] == "/v1/messages/count_tokens"
    assert asked[0][3]["model"] == "claude-haiku-5-5"
    assert {*asked[0][3]} == {"model", "messages", "system", "tools"}


@pytest.mark.parametrize(("key", "why"), [("", "there is no key here"), ("sk-ant-oat01-x", "the key is ")])
def test_without_a_metered_key_nobody_is_asked(key: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "call", lambda *_: pytest.fail("asked"))
    counts, said = TokenCounter(key, "https://api.test").count([PlannedTask(prompt="p")])
    assert counts == [None]
    assert said.startswith(why)
