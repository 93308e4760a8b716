"""A task that is not of a batch, and has no room in a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farmhand.cli import carry
from farmhand.cli.lower_price import in_words, lower, refuse_pointless
from farmhand.cli.render import Printer
from farmhand.core.errors import UsageError, WireError
from farmhand.core.settings import Settings

TASK: dict[str, Any] = {"id": "t", "prompt": "p", "model": "sonnet", "timeout_s": 0.0, "max_usd": 0.05}
REFUSED: dict[str, Any] = {
    "id": "t",
    "state": "failed",
    "error": {"code": "budget", "message": "the budget of the task t has no room"},
    "usage": {"requests": 0},
}
SONNET, HAIKU = "claude-sonnet-5-5", "claude-haiku-5-5"


def test_what_a_refused_task_becomes() -> None:
    found = lower(TASK, REFUSED, Settings(when_spent="haiku"))
    assert found is not None
    task, bent = found
    assert task == TASK | {"id": "t.r1", "model": HAIKU, "economy": False}
    assert bent == {
        "way": "haiku",
        "asked": {"model": SONNET, "engine": "api"},
        "used": {"model": HAIKU, "engine": "api"},
        "why": "the budget of the task t has no room",
    }
    assert in_words(bent).endswith(f"it goes on with {HAIKU}")
    found = lower(TASK | {"work_class": "w"}, REFUSED, Settings(when_spent="haiku,w=economy"))
    assert found is not None
    assert (found[0]["model"], found[0]["economy"]) == ("sonnet", True)
    assert "may take up to a day" in in_words(found[1])


@pytest.mark.parametrize(
    ("task", "result", "ways"),
    [
        ({}, {}, "stop"),
        ({}, {}, "stop,w=haiku"),
        ({"work_class": "w"}, {}, "haiku,w=stop"),
        ({"model": "haiku"}, {}, "haiku"),
        ({"tools": ["Bash"]}, {}, "economy"),
        ({}, {"error": {"code": "billing_error", "message": "no credit"}}, "haiku"),
        # It was begun, and may have cost something.
        ({}, {"usage": {"requests": 1}}, "haiku"),
        ({}, {"uncertain": 1}, "haiku"),
    ],
)
def test_what_stays_refused(task: dict[str, Any], result: dict[str, Any], ways: str) -> None:
    assert lower(TASK | task, REFUSED | result, Settings(when_spent=ways)) is None


def test_a_wish_that_the_task_can_never_have_is_refused() -> None:
    refuse_pointless(TASK, Settings(when_spent="haiku"))
    refuse_pointless(TASK, Settings(when_spent="stop"))
    for task, ways, why in (
        ({"model": "haiku"}, "haiku", "a haiku already"),
        ({"economy": True}, "economy", "half the price already"),
        ({}, "stop,w=haiku", "it stops"),
    ):
        with pytest.raises(UsageError, match=f"--when-spent cannot make the task cheaper: .*{why}"):
            refuse_pointless(TASK | task, Settings(when_spent=ways))
    with pytest.raises(UsageError, match="no task"):
        refuse_pointless(TASK | {"max_tokens": "many"}, Settings(when_spent="haiku"))


def test_it_goes_on_once_and_a_lost_one_is_taken_up_under_its_first_id(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    sent: list[dict[str, Any]] = []
    spans: list[object] = []

    def follow(*given: Any) -> dict[str, Any]:
        sent.append(given[4].task)
        spans.append(given[6])
        return REFUSED | {"id": sent[-1]["id"]}

    monkeypatch.setattr(carry, "_follow", follow)
    spooling = carry.Spooling(TASK, Settings(when_spent="haiku"))
    span = object()
    given: Any = (None, "farm1", "sk-ant-test-x", Printer(stream=False), spooling, None, span)
    result = carry.follow(*given)
    assert spans == [span, span]  # the one that answers is told last, and is what is shown of the task
    assert [task["id"] for task in sent] == ["t", "t.r1"]
    assert (result["id"], result["state"], result["bent"]["way"]) == ("t", "failed", "haiku")
    assert capsys.readouterr().err.count("the budget has no room") == 1

    def lost(*given: Any) -> dict[str, Any]:
        if given[4].task["id"] == "t":
            return REFUSED
        raise WireError("unreachable", "gone", "the same command with --id t.r1 takes it up again")

    monkeypatch.setattr(carry, "_follow", lost)
    with pytest.raises(WireError) as error:
        carry.follow(*given)
    assert error.value.hint == "the same command with --id t takes it up again"
