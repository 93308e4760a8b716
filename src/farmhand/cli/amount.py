"""click's types for amounts: finite numbers, durations, money."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from farmhand.core import amounts

#: The most that a task or a batch may cost. US$, as core/rules has it for a task.
_MOST_USD = 1_000_000


class FiniteRange(click.FloatRange):
    """A range without nan and infinity. click's own lets nan through, which is neither below nor above anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Fail as click does."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Amount(FiniteRange):
    """An amount as `farmhand.core.amounts` reads it."""

    def __init__(self, read: Callable[[str], float], **limits: Any) -> None:
        super().__init__(min=0, **limits)
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the amount in its base unit. Fail as click does."""
        try:
            number = self._read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return super().convert(number, param, ctx)


#: Seconds, written as a number or as 10m.
DURATION = Amount(amounts.duration)
#: US$, also none.
USD = Amount(amounts.money, max=_MOST_USD)
#: What something may cost. US$.
MAX_USD = Amount(amounts.money, max=_MOST_USD, min_open=True)
