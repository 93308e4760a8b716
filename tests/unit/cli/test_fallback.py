"""Which policy holds, and what it does. Terminals, hosts and the real CLI are in tests/integration/dispatch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farmhand.cli import fallback
from farmhand.cli.fallback import Spooled, fall_back, policy_of
from farmhand.core.errors import FarmUnreachable, Refused, WireMismatch
from farmhand.core.settings import Settings
from farmhand.offline.spool import open_spool

TASK: dict[str, Any] = {"id": "t", "prompt": "p", "timeout_s": 0.0}
DOWN = FarmUnreachable("farm1: no route", hint="look")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(fallback, "on_terminal", lambda: False)
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "on_terminal", "elsewhere"),
    [("", "ask", "queue"), ("ask", "ask", "queue"), ("queue", "queue", "queue"), ("none", "none", "none"),
     ("subscription", "subscription", "subscription")],
)  # fmt: skip
def test_the_policy_in_force(monkeypatch: pytest.MonkeyPatch, setting: str, on_terminal: str, elsewhere: str) -> None:
    for terminal, policy in ((True, on_terminal), (False, elsewhere)):
        monkeypatch.setattr(fallback, "on_terminal", lambda terminal=terminal: terminal)
        assert policy_of(Settings(fallback=setting)) == policy


@pytest.mark.parametrize("policy", ["queue", "ask", ""])
@pytest.mark.parametrize("more", [{"files": [{}]}, {"history": [{}]}])
def test_pictures_and_conversations_are_not_queued(policy: str, more: dict[str, Any]) -> None:
    with pytest.raises(FarmUnreachable, match="farm1: no route; a task with pictures, PDFs or a conversation is not"):
        fall_back(DOWN, TASK | more, Settings(fallback=policy))
    assert open_spool(Settings()).waiting() == []
    with pytest.raises(Refused, match="no pictures, no PDFs, no conversation; farm1: no route"):
        fall_back(DOWN, TASK | more, Settings(fallback="subscription", allow_subscription=True))


def test_queueing_is_told_with_the_reason() -> None:
    with pytest.raises(Spooled) as caught:
        fall_back(DOWN, TASK, Settings(host="farm1"))
    assert (caught.value.exit_code, caught.value.task_id) == (4, "t")
    assert str(caught.value) == (
        "queued as task t: farm1: no route (look) (farmhand flush t gives its answer once a farm host is back)"
    )
    [entry] = open_spool(Settings()).waiting()
    assert (entry.task, entry.wanted, entry.sent) == (TASK, "farm1", "")


def test_none_is_the_reason_itself() -> None:
    with pytest.raises(FarmUnreachable) as caught:
        fall_back(DOWN, TASK, Settings(fallback="none"))
    assert caught.value is DOWN


def test_versions_that_do_not_match_are_not_waited_for() -> None:
    with pytest.raises(WireMismatch):
        fall_back(WireMismatch("too old"), TASK, Settings(fallback="queue"))
    assert open_spool(Settings()).waiting() == []


def test_the_subscription_that_is_off_is_refused_with_the_reason() -> None:
    with pytest.raises(Refused, match="is off; farm1: no route"):
        fall_back(DOWN, TASK, Settings(fallback="subscription"))
