"""A budget and a rotation over eight children in real containers: the design's checks 10 and 11."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_aws_ends import Budget, rotation
from tests.support.aws_site import AwsSite


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsSite]:
    with AwsSite(tmp_path_factory.mktemp("ends"), at_once=8) as made:
        yield made


def test_a_budget_holds_over_eight_children(site: AwsSite, tmp_path: Path) -> None:
    Budget(site, tmp_path, children=8, tasks=600, cap="0.05").check()


def test_a_rotated_key_fails_no_task_of_eight_children(site: AwsSite, tmp_path: Path) -> None:
    rotation(site, tmp_path, children=8)
