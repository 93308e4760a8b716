"""A number on the command line that is finite."""

from __future__ import annotations

import math
from typing import Any

import click

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


#: What something may cost. US$.
MAX_USD = FiniteRange(min=0, max=_MOST_USD, min_open=True)
