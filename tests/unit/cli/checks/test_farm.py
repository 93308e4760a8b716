"""What is read from a status. Real hosts are in tests/integration/dispatch/test_doctor.py."""

from __future__ import annotations

from typing import Any

import pytest

from farmhand import __version__
from farmhand.cli.checks import Check, farm

GOOD: dict[str, Any] = {"version": __version__, "state": "running", "cli": "2.1.330", "time": 1000.0, "running": 1}
REFUSED = {"fingerprint": "a1b2", "state": "refused", "reason": "credit is low", "running": 0, "queued": 4}
DAY = {"limit_usd": 5.0, "spent_usd": 1.25, "reserved_usd": 0.1, "day": "2026-11-24"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (farm.reach(GOOD), f"jada-agent {__version__} active"),
        (farm.cli(GOOD), "claude 2.1.330"),
        (farm.clock("f", GOOD, 996.0, 1004.0), "agrees"),
        (farm.clock("f", GOOD, 1004.0, 1005.0), "agrees"),
        (farm.queue(GOOD, 0.0), "1 running, 0 queued, none parked"),
        (farm.queue(GOOD | {"queued": 7}, 12.0), "7 queued, the oldest for 12 s"),
        (farm.queue(GOOD | {"keys": [REFUSED | {"queued": 0}]}, 0.0), "none parked"),
        (farm.budget(GOOD), "no budget"),
        (farm.cloudwatch(GOOD | {"cloudwatch": {"at": GOOD["time"] - 60.0}}), "are pushed"),
        (farm.budget(GOOD | {"budget_day": DAY}), "US$ 1.25 of US$ 5.00 spent on 2026-11-24"),
    ],
)
def test_green(line: Check, words: str) -> None:
    assert (line.ok, line.fix) == (True, "")
    assert words in line.detail


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (farm.reach(GOOD | {"version": "0.0.1"}), "the agent is 0.0.1"),
        (farm.reach(GOOD | {"state": "draining"}), "draining"),
        (farm.cli(GOOD | {"cli": None}), "no claude CLI"),
        (farm.clock("f", GOOD | {"time": None}, 0, 0), "does not tell"),
        (farm.clock("f", GOOD, 1100.0, 1101.0), "-100 s off"),
        (farm.clock("f", GOOD, 900.0, 901.0), "+99 s off"),
        (farm.queue(GOOD | {"awaiting_key": 2}, 0.0), "2 tasks await a key"),
        (farm.queue(GOOD | {"keys": [REFUSED]}, 0.0), "4 tasks are parked: key a1b2 was refused: credit is low"),
        (farm.queue(GOOD | {"queued": 1}, 7300.0), "waits for 2.0 h"),
        (farm.budget(GOOD | {"budget_day": DAY | {"spent_usd": 5.0}}), "US$ 5.00 of US$ 5.00"),
        (farm.cloudwatch(GOOD | {"cloudwatch": {"at": GOOD["time"] - 1200.0, "problem": "x"}}), "for 20 minutes: x"),
        (farm.cloudwatch(GOOD | {"cloudwatch": {"at": None, "problem": "denied"}}), "yet: denied"),
    ],
)
def test_red_with_its_fix(line: Check, words: str) -> None:
    assert line.ok is False
    assert line.fix
    assert words in line.detail
