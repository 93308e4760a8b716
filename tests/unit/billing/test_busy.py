"""A shell that is not ready in time after an edit, though it was before: a busy machine, or the edit's doing."""

from __future__ import annotations

from typing import Any

import pytest

from farmhand.billing import Report, search
from tests.unit.billing.conftest import Station

KEY = "sk-ant-test-first-0000000000"
EXPORT = f"export ANTHROPIC_API_KEY={KEY}\n"
SLOW = f"[ ! -e {{}}/slow ] || sleep 30\n{EXPORT}"


@pytest.fixture
def asked(station: Station, monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The askings, from 1, in which the machine is busy."""
    find = search.find
    slow, busy = station.home / "slow", [set[int](), set[int]()]

    def counted(*given: Any, **named: Any) -> Report:
        busy[1].add(len(busy[1]) + 1)
        if len(busy[1]) in busy[0]:
            slow.touch()
        report: Report = find(*given, **named, limit_s=2.0 if slow.exists() else 10.0)
        slow.unlink(missing_ok=True)
        return report

    monkeypatch.setattr(search, "find", counted)
    station.put({".bashrc": SLOW.format(station.home)})
    return busy


def test_a_shell_that_is_late_once_is_asked_again(station: Station, asked: list[set[int]]) -> None:
    asked[0] |= {2}
    done = station.present(ask_shell=True, environ={"PATH": "/usr/bin:/bin"})
    assert (done["billing"]["metered"], done["left"], asked[1]) == (False, [], {1, 2, 3})
    assert EXPORT not in station.read(".bashrc")


def test_what_could_not_be_seen_to_help_is_taken_back_said_and_not_remembered(
    station: Station, asked: list[set[int]]
) -> None:
    asked[0] |= set(range(2, 9))
    before = station.read(".bashrc")
    given: dict[str, Any] = {"ask_shell": True, "environ": {"PATH": "/usr/bin:/bin"}}
    done = station.present(**given)
    assert station.read(".bashrc") == before
    assert (done["edits"], done["billing"]["certain"]) == ([], False)
    assert done["files"] == [str(station.home / "repos.env")]
    path = station.home / ".bashrc"
    assert done["left"][-1] == (
        f"ANTHROPIC_API_KEY in {path}:2 is left: what was tried in {path} left a shell that was not ready in time "
        "and was taken back; run this again when the machine is less busy, or take it out by hand"
    )
    asked[0].clear()
    done = station.present(**given)
    assert (done["billing"]["metered"], done["left"]) == (False, [])
    assert EXPORT not in station.read(".bashrc")
