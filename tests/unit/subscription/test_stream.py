"""What a run of the CLI says, and how its end is judged. The lines are those of the real CLI 2.1.330, shortened."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farmhand.core.errors import Refused
from farmhand.subscription.stream import CliRun

GOOD = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "result": "said"}
INIT = {"type": "system", "subtype": "init", "apiKeySource": "none", "tools": [], "mcp_servers": []}


def run(*lines: dict[str, Any]) -> CliRun:
    made = CliRun()
    for line in lines:
        made.take(json.dumps(line).encode())
    return made


@pytest.mark.parametrize(
    ("result", "status", "fails"),
    [
        (GOOD, 0, False),
        (GOOD | {"is_error": True}, 0, True),
        (GOOD, 1, True),
        (GOOD, -9, True),
        (GOOD | {"num_turns": 0}, 0, True),  # a local command
        (GOOD | {"num_turns": 2}, 0, True),  # a cut answer, and the end of it alone as the result
        (GOOD | {"subtype": "error_during_execution"}, 0, False),  # subtype means nothing
    ],
)
def test_the_end_is_judged_by_status_error_and_turns(result: dict[str, Any], status: int, fails: bool) -> None:
    assert (run(INIT, result).failure(status) is not None) is fails


def test_an_error_is_one_line_without_a_token() -> None:
    failure = run(INIT).failure(1, "error: unknown option\n'--x' sk-ant-oat01-test-AAAAAAAAAAAAAAAAAAAAAAAA")
    assert failure is not None
    assert "exit status 1" in failure.message
    assert "\n" not in failure.message
    assert "AAAA" not in failure.message


@pytest.mark.parametrize(
    "more",
    [
        {"apiKeySource": "ANTHROPIC_API_KEY"},
        {"apiKeySource": None},
        {"tools": ["Bash"]},
        {"mcp_servers": [{"name": "x"}]},
    ],
)
def test_a_run_with_a_key_or_tools_is_refused_at_its_first_line(more: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        run(INIT | more)


@pytest.mark.parametrize("line", [b"", b"{", b"7", b"[" * 100_000, b"\xff", b'{"type": 7}', b'{"type": "system"}'])
def test_lines_that_say_nothing_are_no_crash(line: bytes) -> None:
    made = CliRun()
    made.take(line)
    assert not made.checked


def test_no_result_at_all_is_a_failure() -> None:
    """Some versions ended with nothing and status 0 (anthropics/claude-code#38760, #48455)."""
    assert run(INIT).failure(0) is not None
    assert CliRun().failure(0) is not None


def test_limits_in_the_middle_of_another_line_are_found() -> None:
    """CLI 2.1.74 wrote them there (anthropics/claude-code#49640)."""
    made = run(INIT)
    info = {"status": "rejected", "isUsingOverage": True}
    event = json.dumps({"type": "rate_limit_event", "rate_limit_info": info}, separators=(",", ":"))
    made.take(b'{"type":"assistant","message":{"content":"one ' + event.encode() + b"\n")
    assert made.use is not None
    assert made.use.is_using_overage
    assert made.unread == 1
    made.take(b' two"}}\n')
    made.take(b'x{"type":"rate_limit_event","rate')
    assert made.unread == 3


def test_usage_is_that_of_all_models() -> None:
    by_model = {
        "a": {"inputTokens": 1, "outputTokens": 2, "cacheReadInputTokens": 4},
        "b": {"inputTokens": 10, "outputTokens": True, "cacheCreationInputTokens": -1},
        "c": 7,
    }
    assert run(GOOD | {"modelUsage": by_model}).usage() == {
        "input_tokens": 11,
        "output_tokens": 2,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
    }
