"""One seed alone: `pytest tests/chaos/test_random_kills.py --seed 123`."""

from __future__ import annotations

import pytest

SEEDS = 208
GROUP = 8
#: Seeds of a group that run at once.
AT_ONCE = 6


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="tests/chaos: run this seed alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Groups of seeds, or the one that is asked for."""
    if "seeds" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--seed", default=None)
    groups = [range(n, n + GROUP) for n in range(0, SEEDS, GROUP)] if one is None else [range(one, one + 1)]
    metafunc.parametrize("seeds", groups, ids=[f"{group[0]}-{group[-1]}" for group in groups])
