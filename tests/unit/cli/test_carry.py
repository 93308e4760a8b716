"""What becomes of a call whose host goes away once it may have the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farmhand.cli import fallback
from farmhand.cli.carry import Spooling
from farmhand.core.errors import FarmUnreachable, UsageError, WireError
from farmhand.core.settings import Settings
from farmhand.offline.spool import open_spool

TASK: dict[str, Any] = {"id": "t", "prompt": "p", "timeout_s": 0.0}
LOST = WireError("lost", "farm1: the connection was lost")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(fallback, "on_terminal", lambda: False)


@pytest.mark.parametrize("error", [LOST, WireError("unreachable", "farm1: no route")])
def test_a_lost_task_is_noted_for_the_host_that_may_have_it(error: WireError) -> None:
    failure = Spooling(TASK, Settings()).failed(error, "farm1")
    assert isinstance(failure, fallback.Spooled)
    assert str(failure).startswith("task t may be running on farm1: ")
    [entry] = open_spool(Settings()).waiting()
    assert (entry.sent, entry.task) == ("farm1", TASK)
    assert Spooling(TASK, Settings()).wanted() == "farm1"


def test_a_lost_task_with_pictures_is_not_noted() -> None:
    failure = Spooling(TASK | {"files": [{}]}, Settings()).failed(LOST, "farm1")
    assert "the connection was lost; a task with pictures" in str(failure)
    assert open_spool(Settings()).waiting() == []


@pytest.mark.parametrize(
    ("error", "policy"),
    [(LOST, "none"), (WireError("draining", "later", status=503), "queue"), (WireError("bad_key", "x"), "queue")],
)
def test_what_the_host_said_itself_is_passed_on(error: WireError, policy: str) -> None:
    failure = Spooling(TASK, Settings(fallback=policy)).failed(error, "farm1")
    assert not isinstance(failure, fallback.Spooled)
    assert failure.code == error.code
    assert open_spool(Settings()).waiting() == []


def test_a_call_waits_for_the_host_that_another_has_sent_its_task_to() -> None:
    open_spool(Settings()).add(TASK)
    call = Spooling(TASK, Settings())
    assert call.wanted() == ""
    open_spool(Settings()).claim("t", "farm2")
    with pytest.raises(FarmUnreachable, match="has just been sent to farm2"):
        call.sending("farm1")
    call.sending("farm2")
    call.ended({"id": "t", "state": "succeeded"}, "farm2")
    assert Spooling(TASK, Settings()).result == {"id": "t", "state": "succeeded"}
    with pytest.raises(UsageError, match="another task"):
        Spooling(TASK | {"prompt": "q"}, Settings())


def test_another_task_with_the_id_is_refused_at_once() -> None:
    open_spool(Settings()).add(TASK)
    with pytest.raises(UsageError, match="another task"):
        Spooling(TASK | {"prompt": "q"}, Settings())
