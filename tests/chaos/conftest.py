"""Which seeds run: 40 as a rule, more with `--seeds 208`, one alone with `--seed 123`."""

from __future__ import annotations

import pytest

SEEDS = 40
GROUP = 8
#: Seeds of a group that run at once.
AT_ONCE = 6


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="tests/chaos: run this seed alone")
    parser.addoption("--seeds", type=int, default=SEEDS, help="tests/chaos: how many seeds to run")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Groups of seeds, or the one that is asked for."""
    if "seeds" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--seed", default=None)
    count = metafunc.config.getoption("--seeds", default=SEEDS)
    every = range(count) if one is None else range(one, one + 1)
    groups = [every[n : n + GROUP] for n in range(0, len(every), GROUP)]
    metafunc.parametrize("seeds", groups, ids=[f"{group[0]}-{group[-1]}" for group in groups])
