from __future__ import annotations

import time
from typing import Any

import pytest

from farmhand.cli.render import Printer
from farmhand.cli.show import _text
from farmhand.history.store import PastTaskCopy

LONGEST = "its longest length (raise --max-tokens)"
CONTEXT = "the end of the model's context"


def copy(result: dict[str, Any]) -> PastTaskCopy:
    return PastTaskCopy("farm1", "f", 1_796_000_001.0, 30.0, {"id": "t1", **result}, {"prompt": "p"})


@pytest.mark.parametrize(
    ("stop_reason", "where"), [("end_turn", ""), ("max_tokens", LONGEST), ("model_context_window_exceeded", CONTEXT)]
)
def test_an_answer_that_is_not_whole_says_so_wherever_it_is_shown(
    stop_reason: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {"state": "succeeded", "text": "and the", "stop_reason": stop_reason, "created_at": 1_796_000_000.0}
    shown = _text(copy(result), None)
    assert [line for line in shown.splitlines() if "cut off" in line] == ([f"cut off at {where}"] if where else [])
    assert Printer(stream=False).report(result, as_json=False) == 0
    assert capsys.readouterr().err == (f"farmhand: the answer was cut off at {where}\n" if where else "")


def test_a_time_says_its_zone_since_days_are_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    result = {"state": "succeeded", "text": "x", "created_at": 1_796_000_000.0}
    monkeypatch.setenv("TZ", "XYZ-3")
    time.tzset()
    try:
        assert "2026-11-30 03:53 XYZ" in _text(copy(result), None)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_task_that_failed_has_its_own_error() -> None:
    result = {"state": "failed", "stop_reason": "max_tokens", "created_at": 1_796_000_000.0}
    assert "cut off" not in _text(copy(result), None)
