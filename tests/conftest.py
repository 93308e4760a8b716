"""For all tests: nothing is skipped. What a test needs is installed by make, or the run fails and says what it is.

Skips are turned into failures here, those of single tests and those of whole files. And signals that end a
program do so: in the background of a shell, or below nohup, tests and all they start are told to ignore some. And
nothing is left in the checkout: what tests write is in directories of their own.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from tests.support import garbage

ROOT = Path(__file__).resolve().parent.parent
#: What git ignores there, beside names that begin with a dot: .gitignore says why.
_IGNORED = {"artifacts", "env", "dist"}
_AT_FIRST = {path.name for path in ROOT.iterdir()}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves something at the top of the checkout has failed."""
    left = {path.name for path in ROOT.iterdir()} - _AT_FIRST - _IGNORED
    left = {name for name in left if not name.startswith(".")}
    if left:
        print(f"left in {ROOT} by this run: {', '.join(sorted(left))}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_finish() -> None:
    """What the collection has made stays until the end."""
    garbage.leave_alone()


def pytest_configure() -> None:
    """Signals that end a program do so, as in the foreground. No example of a property fails for being slow."""
    hypothesis.settings.register_profile("farmhand", deadline=None)
    hypothesis.settings.load_profile("farmhand")
    garbage.seldom()
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


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
