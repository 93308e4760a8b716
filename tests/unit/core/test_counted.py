from __future__ import annotations

import re
from pathlib import Path

from farmhand.core.readable import counted

SOURCES = sorted((Path(__file__).parents[3] / "src" / "farmhand").rglob("*.py"))
#: A number in braces before the plural of what people count; what is never one is written in capitals.
_NAIVE = re.compile(r"\{(?!counted|[A-Z_]+\})[^{}]*(?:\{[^{}]*\}[^{}]*)*\} (?:tasks|containers|hosts|files|requests)\b")
#: Rates, and numbers that are never one.
_SPARED = ("tasks/s", "tasks end per second", "tasks a month", "all its {requests} requests")


def test_one_is_not_many() -> None:
    assert [counted(number, "task") for number in (0, 1, 2, 1234)] == ["0 tasks", "1 task", "2 tasks", "1,234 tasks"]
    assert counted(1, "task has", "tasks have") == "1 task has"
    assert counted(2, "retry", "retries") == "2 retries"


def test_no_message_says_1_tasks() -> None:
    found = [
        f"{path}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text().splitlines()
        if _NAIVE.search(line) and not any(words in line for words in _SPARED)
    ]
    assert found == []
