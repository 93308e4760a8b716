from __future__ import annotations

import json

import pytest

from farmhand.agent.config import Config
from farmhand.agent.http.requests import MAX_TASKS, MAX_VALUES, read_body, read_tasks
from farmhand.core.errors import UsageError
from farmhand.wire.requests import BatchLimits, Cancellation

CONFIG = Config()


def body(**task: object) -> bytes:
    return json.dumps({"tasks": [{"id": "a", "prompt": "p", **task}]}).encode()


@pytest.mark.parametrize(
    "flood",
    [
        b'{"tasks":[' + b"{}," * MAX_VALUES + b"{}]}",
        body().replace(b'"p"', b'"p","labels":{' + b'"a":"",' * MAX_VALUES + b'"b":""}'),
        body().replace(b'"p"', b'"p","schema":{"enum":[' + b"1," * MAX_VALUES + b"1]}"),
        b'{"tasks":' + b"[" * MAX_VALUES * 2,
    ],
    ids=lambda flood: str(flood[:60]),
)
def test_a_flood_of_values_is_refused_before_it_is_decoded(flood: bytes) -> None:
    with pytest.raises(UsageError, match="it has more than 500000 values"):
        read_tasks(flood, CONFIG)
    for kind in (Cancellation, BatchLimits):
        with pytest.raises(UsageError, match="it has more than 500000 values"):
            read_body(flood, kind)


def test_a_request_cancels_no_more_tasks_than_one_may_bring() -> None:
    ids = [f"t{n}" for n in range(MAX_TASKS + 1)]
    with pytest.raises(UsageError, match="up to 1000 ids, not 1001"):
        read_body(json.dumps({"ids": ids}).encode(), Cancellation)
    assert read_body(json.dumps({"ids": ids[1:]}).encode(), Cancellation).ids == ids[1:]


def test_a_thousand_tasks_with_large_texts_full_of_commas_pass() -> None:
    tasks = [{"id": f"t{n}", "prompt": '{"a": [1, 2]},\n' * 500, "labels": {"n": str(n)}} for n in range(1000)]
    assert len(read_tasks(json.dumps({"tasks": tasks}).encode(), CONFIG)) == 1000


def test_a_prompt_of_three_megabytes_passes() -> None:
    [task] = read_tasks(body(prompt="a, b, " * 500_000), CONFIG)
    assert len(task.prompt) == 3_000_000


@pytest.mark.parametrize(
    "task",
    [
        {"max_tokens": -5},
        {"max_tokens": 2**70},
        {"max_tokens": 1.5},
        {"max_usd": -1},
        {"max_usd": "NaN"},
        {"timeout_s": -1},
        {"priority": 2**70},
        {"system": "x" * 5_000_000},
    ],
    ids=lambda task: str(task)[:60],
)
def test_a_figure_out_of_its_range_is_one_clear_line(task: dict[str, object]) -> None:
    with pytest.raises(UsageError) as refusal:
        read_tasks(body(**task), CONFIG)
    assert "\n" not in refusal.value.message
    assert "task" in refusal.value.message


def test_a_time_over_the_hosts_limit_is_said_in_words_of_any_caller() -> None:
    with pytest.raises(UsageError, match=r"task 'a': its time of 7200 s is over this host's limit, 3600 s") as refused:
        read_tasks(body(timeout_s=7200), Config(task_timeout_max_s=3600))
    assert "--timeout" in refused.value.hint
