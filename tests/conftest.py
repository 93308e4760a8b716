"""For all tests: nothing is skipped. What a test needs is installed by make, or the run fails and says what it is.

Skips are turned into failures here, those of single tests and those of whole files. And an interrupt interrupts: where
tests run in the background of a shell they were told to ignore it, and what they start would be as well.
"""

from __future__ import annotations

import signal
from collections.abc import Generator

import pytest


def pytest_configure() -> None:
    """An interrupt is what it is in the foreground."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure; an expected failure (xfail) stays one."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped ({reason}): install what it needs; no test may be left out"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that skips itself on import."""
    report = yield
    if report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} skipped itself ({report.longrepr}): install what it needs"
    return report
