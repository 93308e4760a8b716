"""What is said of a stack that failed: its way out loses no data, and is one that the commands have."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.aws.client import Aws
from farmhand.aws.environment.stacks import STUCK, Stack, Stacks
from farmhand.cli.cloud.status import _trouble
from farmhand.core.errors import NotConfigured
from tests.unit.aws.conftest import conf

DOWN, DATA, ON = "farmhand cloud down removes it", "down --delete-data", "aws cloudformation continue-update-rollback"


def way_out(part: str, status: str) -> str:
    stacks = Stacks(aws := Aws(conf()))
    return stacks.way_out(Stack(getattr(aws.names, part), status, "", {}, {}, 0.0))


@pytest.mark.parametrize("status", sorted(STUCK))
def test_no_data_is_lost_for_a_stack_that_is_stuck(account: Path, status: str) -> None:
    """`down` keeps the stack of the data, unless nothing is in it; org-formation/org-formation-cli#455."""
    never_made = status in ("ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS")
    on = status == "UPDATE_ROLLBACK_FAILED"
    for part in ("base", "watch", "network"):
        assert (ON if on else DOWN) in way_out(part, status)
    assert (ON if on else DOWN if never_made else DATA) in way_out("data", status)


def test_a_stack_that_can_be_updated_is_run_again(account: Path) -> None:
    assert way_out("data", "UPDATE_ROLLBACK_COMPLETE") == "then run it again"


def test_a_stuck_stack_is_told_without_a_reason(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CloudFormation forgets events after 90 days: `status` ended with 0."""
    stacks = Stacks(Aws(conf()))
    monkeypatch.setattr(stacks, "first_failure", lambda _name: "")
    stuck = Stack("farmhand-try", "DELETE_FAILED", "", {}, {}, 0.0)
    assert _trouble(stacks, stuck.name, stuck) == "no reason is given"
    with pytest.raises(NotConfigured, match="DELETE_FAILED: no reason is given"):
        stacks.check_usable(stuck)
    fine = Stack("farmhand-try", "UPDATE_ROLLBACK_COMPLETE", "", {}, {}, 0.0)
    assert _trouble(stacks, fine.name, fine) == ""
