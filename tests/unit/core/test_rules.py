from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from farmhand.core import rules
from farmhand.core.task import Repository, Task


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        *(
            ({name: held}, "key_in_task", "an API key stands in its id")
            for name, held in {
                **dict.fromkeys(("id", "batch", "model", "work_class"), "sk-ant-test-pasted-0000"),
                "tools": ("sk-ant-test-pasted-0000",),
                "labels": {"a": "sk-ant-test-pasted-0000"},
            }.items()
        ),
        ({"labels": {"sk-ant-test-pasted-0000": ""}}, "key_in_task", "an API key stands in its id"),
        ({"id": "no good"}, "invalid_task", "the id does not match"),
        ({"batch": "-"}, "invalid_task", "the batch's name"),
        ({"prompt": "\n"}, "empty_prompt", "the prompt is empty"),
        ({"prompt": "x" * (4 * 1024 * 1024 + 1)}, "too_large", "the limit is 4194304"),
        ({"prompt": "é" * (2 * 1024 * 1024 + 1)}, "too_large", "the limit is 4194304"),
        ({"system": "x" * (4 * 1024 * 1024 + 1)}, "too_large", "the system text has 4194305 bytes"),
        ({"prompt": "a\0"}, "invalid_task", "NUL character at 1"),
        ({"prompt": "a\ud83d"}, "invalid_task", "the prompt has half a character (a lone surrogate) at 1"),
        ({"system": "\udc00"}, "invalid_task", "the system text has half a character"),
        ({"labels": {"\ud800": "x"}}, "invalid_task", "a label or the work class has half a character"),
        ({"labels": {"a": "x" * 70_000}}, "too_large", "labels and work class have 70001 bytes"),
        ({"labels": {str(n): "" for n in range(20_000)}}, "too_large", "the limit is 65536"),
        ({"work_class": "x" * 70_000}, "too_large", "the limit is 65536"),
        ({"system": "\0"}, "invalid_task", "the system text has a NUL"),
        ({"tools": ("Hack",)}, "invalid_task", "unknown tool Hack"),
        ({"tools": ("Bash",), "engine": "api"}, "invalid_task", "tools need the engine cli"),
        ({"economy": True, "tools": ("Bash",)}, "invalid_task", "economy is for text tasks"),
        ({"economy": True, "repo": Repository(commit="0" * 40)}, "invalid_task", "economy is for text tasks"),
        ({"engine": "api", "repo": Repository(commit="0" * 40)}, "invalid_task", "a repository needs the engine cli"),
        ({"repo": Repository(commit="main")}, "invalid_task", "whole ids"),
        ({"repo": Repository(commit="0" * 40, shallow=("x",))}, "invalid_task", "whole ids"),
        ({"repo": Repository(commit="0" * 40, shallow=("0" * 40,) * 10_001)}, "invalid_task", "cut in 10001 places"),
        *(
            ({"repo": Repository(commit="0" * 40, subdir=name)}, "invalid_task", "not a directory of a repository")
            for name in ("..", "a/../b", "/etc", "a//b", ".git", "a/.GIT", "a\0")
        ),
        ({"model": "nothing"}, "unknown_model", "unknown model 'nothing'"),
        ({"max_tokens": 0}, "invalid_task", "max_tokens must be 1 to"),
        ({"timeout_s": -1.0}, "invalid_task", "timeout_s"),
        ({"timeout_s": float("nan")}, "invalid_task", "timeout_s"),
        ({"priority": 2_000_000}, "invalid_task", "priority must be within"),
        ({"max_usd": Decimal(0)}, "invalid_task", "max_usd must be above 0"),
        ({"max_usd": Decimal("NaN")}, "invalid_task", "max_usd must be above 0"),
        ({"schema": {"type": "nothing"}}, "invalid_schema", "not a JSON Schema"),
    ],
)
def test_what_breaks_a_rule(given: dict[str, Any], code: str, words: str) -> None:
    broken = rules.check(Task(**{"id": "t", "prompt": "p", **given}))
    assert broken is not None
    assert broken.code == code
    assert words in broken.message


def test_what_breaks_none() -> None:
    task = Task(id="t", prompt="p", batch="b", schema={"type": "object"}, max_usd=Decimal("0.5"), model="claude-x-1")
    assert rules.check(task) is None


@pytest.mark.parametrize(
    ("error", "shared"),
    [
        ({"code": "budget", "message": "…", "budget": {"of": "day"}}, True),
        ({"code": "budget", "message": "…", "budget": {"of": "batch"}}, True),
        # The field says it, whatever stands in the words.
        ({"code": "budget", "message": "the budget of the day is not it", "budget": {"of": "task"}}, False),
        ({"code": "budget", "message": "the budget of the batch b has no room: …"}, True),
        ({"code": "budget", "message": "the budget of the task t has no room: …"}, False),
        ({"code": "budget", "message": "the budget of the daylight has no room: …"}, False),
        ({"code": "billing_error", "message": "the budget of the day"}, False),
        ({}, False),
    ],
)
def test_a_shared_budget_is_known_by_its_field_or_by_the_words_of_an_older_agent(error: Any, shared: bool) -> None:
    assert rules.by_shared_budget(error) is shared
