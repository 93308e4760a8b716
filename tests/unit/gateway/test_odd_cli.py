"""The backend of the plan with a CLI that does what the real one should not: a script that says given lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farmhand.gateway.backends import FAILED, BackendError, Declined, claude_process, plan_reply
from farmhand.gateway.backends.plan_turns import PlanTurns
from farmhand.gateway.backends.subscription import SubscriptionBackend
from farmhand.gateway.tables import SubscriptionTable
from tests.unit.gateway.test_cli_answer import END, START, STREAM, TOOL, block
from tests.unit.gateway.turns import turn

TOKEN = "sk-ant-oat01-test-odd-000000000000000000"
INIT: dict[str, Any] = {"type": "system", "subtype": "init", "apiKeySource": "none", "tools": [], "mcp_servers": []}
RESULT: dict[str, Any] = {"type": "result", "is_error": False, "num_turns": 1, "result": "one two"}
#: Its turn's lines are in a file; `then` is what it does after them.
SCRIPT = """#!/bin/sh
case "$*" in
  *--version*) echo 2.1.330 ;;
  *auth*) echo '{{"loggedIn": true, "authMethod": "oauth_token", "apiProvider": "firstParty"}}' ;;
  *) cat > {directory}/stdin; cat {directory}/lines; {then} ;;
esac
"""


class Failed(Exception):
    """Stands for a CLI that has failed before its answer began: the turn goes elsewhere, and the tier stays open."""


Made = Callable[..., SubscriptionBackend]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def make(lines: list[Any], then: str = "exit 0") -> SubscriptionBackend:
        given = [each if isinstance(each, str) else json.dumps(each) for each in lines]
        (tmp_path / "lines").write_text("".join(f"{line}\n" for line in given))
        script = tmp_path / "claude"
        script.write_text(SCRIPT.format(directory=tmp_path, then=then))
        script.chmod(0o755)
        table = SubscriptionTable(enabled=True, cli=str(script), warm_s=0)
        return SubscriptionBackend(table, PlanTurns(lock_path=tmp_path / "plan"), {"CLAUDE_CODE_OAUTH_TOKEN": TOKEN})

    return make


def said(*events: Any) -> list[Any]:
    return [{"type": "stream_event", "event": event} for event in events]


async def answered(backend: SubscriptionBackend) -> dict[str, Any]:
    asked = turn(fields={"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]})
    try:
        async with backend.answer(asked) as reply:
            return dict(json.loads(b"".join([piece async for piece in reply.pieces()])))
    finally:
        backend.close()
        await backend.closed()


async def test_an_orderly_cli_is_believed(made: Made, tmp_path: Path) -> None:
    odd = ["", "7", {"type": "new_in_some_version", "x": 1}, {"type": "system", "subtype": "status"}]
    whole = await answered(made([INIT, *odd, *said(*STREAM), RESULT]))
    assert whole["content"] == [{"type": "text", "text": "one two"}]
    assert json.loads((tmp_path / "stdin").read_text())["message"]["content"][0]["text"] == "hello"
    assert not list(tmp_path.glob("farmhand-run-*"))


@pytest.mark.parametrize(
    ("lines", "then", "error"),
    [
        ([INIT | {"apiKeySource": "ANTHROPIC_API_KEY"}, *said(*STREAM), RESULT], "exit 0", Declined),
        ([INIT | {"tools": ["Bash"]}, *said(*STREAM), RESULT], "exit 0", Declined),
        ([*said(*STREAM), RESULT], "exit 0", BackendError),
        ([INIT, *said(START, START)], "exit 0", BackendError),
        ([INIT, *said(START, TOOL)], "sleep 600", BackendError),
        ([INIT, *said(*STREAM, *block(2, "text", "more")), RESULT], "exit 0", BackendError),
        ([INIT, *said(*STREAM), RESULT], "exit 1", BackendError),
        ([INIT, *said(*STREAM), RESULT | {"is_error": True}], "exit 0", BackendError),
        ([INIT, *said(*STREAM)], "exit 0", BackendError),
        ([INIT, *said(*STREAM[:-3]), {"type": "user"}], "sleep 600", BackendError),
        (
            [INIT, *said(START, *block(0, "text", "one ")), '{"type":"stream_event","ev', *said(*END), RESULT],
            "",
            BackendError,
        ),
        ([INIT], "exit 0", Failed),
        ([], "exit 0", Failed),
        ([], "echo no such option >&2; exit 1", Failed),
    ],
)
async def test_what_a_cli_may_not_do_is_an_error(
    made: Made, lines: list[Any], then: str, error: type[Exception]
) -> None:
    backend = made(lines, then)
    with pytest.raises(Declined if error is Failed else error) as caught:
        await answered(backend)
    if error is Failed:
        assert isinstance(caught.value, Declined)
        assert caught.value.reason.code == FAILED
    closed = backend.state().closed
    assert (closed.code if closed else None) == ("credential" if error is Declined else None)


async def test_an_error_of_the_cli_is_named_and_has_no_token(made: Made) -> None:
    with pytest.raises(Declined, match="no such option") as caught:
        await answered(made([], f"echo no such option {TOKEN} >&2; exit 1"))
    assert TOKEN not in str(caught.value)


async def test_a_login_that_only_draws_on_extra_usage_closes_the_tier(made: Made) -> None:
    words = "API Error: 400 Third-party apps now draw from your extra usage, not your plan limits."
    backend = made([INIT, RESULT | {"is_error": True, "api_error_status": 400, "result": words}], "exit 1")
    with pytest.raises(Declined, match="bills such turns as extra usage"):
        await answered(backend)
    closed = backend.state().closed
    assert closed is not None
    assert closed.code == "overage"


async def test_a_cli_that_hangs_at_its_end_is_killed_and_its_answer_kept(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claude_process, "_END_S", 0.2)
    whole = await answered(made([INIT, *said(*STREAM), RESULT], "sleep 600 & wait"))
    assert whole["content"][0]["text"] == "one two"


async def test_a_turn_that_takes_too_long_ends(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Public reports have CLIs that stop in the middle for ever (anthropics/claude-code#39700)."""
    monkeypatch.setattr("farmhand.gateway.backends.subscription.TURN_S", 0.5)
    monkeypatch.setattr(plan_reply, "TURN_S", 0.5)
    with pytest.raises(BackendError, match="did not end within") as caught:
        await answered(made([INIT, *said(START)], "sleep 600 & wait"))
    assert caught.value.status == 400  # not to be asked again
