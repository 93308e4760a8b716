"""Helpers of the testinfra tests: systemd as it loaded a unit, and the journal when a test about a service fails."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Generator
from typing import Any

import pytest
from testinfra.host import Host

Properties = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def properties(host: Host) -> Properties:
    """`properties("x.service")`: every property of the unit as systemd has it loaded."""

    @functools.cache
    def show(unit: str) -> dict[str, str]:
        lines = host.check_output("systemctl show --all --no-pager %s", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    return show


@pytest.fixture
def exposure(host: Host) -> Callable[[str], float]:
    """`exposure("x.service")`: the score of `systemd-analyze security`, 0.0 (safe) to 10.0."""

    def score(unit: str) -> float:
        rows: list[dict[str, Any]] = json.loads(host.check_output("systemd-analyze security --json=short %s", unit))
        assert rows, f"systemd-analyze has nothing on {unit}"
        line = host.check_output("systemd-analyze security --no-pager %s", unit).splitlines()[-1]
        return float(line.split(":", 1)[1].split()[0])

    return score


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Print the agent's journal beside a failure."""
    report: Any = yield
    if report.when == "call" and report.failed and "host" in getattr(item, "funcargs", {}):
        journal = item.funcargs["host"].run("journalctl --no-pager -n 40 -u 'jada-*'")  # type: ignore[attr-defined]
        report.sections.append(("journal of jada-*", journal.stdout))
    return report
