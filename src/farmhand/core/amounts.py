"""Durations and money as people write them, on the command line and in the settings. A plain number has the base unit.

Standard library only, and nothing slow: every start of claude-cheap imports this.
"""

from __future__ import annotations

import math
import re

DURATION_FORM = "seconds, or a time such as 90s, 10m, 1h30m or 2d"
MONEY_FORM = "US$: 2, 0.05 or $0.05"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")
_PARTS = re.compile(rf"(?:{_PART.pattern})+")


def duration(text: str) -> float:
    """Return the seconds in `text`, 0 or more. Raise ValueError, whose message begins with the text."""
    written = text.strip().lower()
    if _PARTS.fullmatch(written):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(written))
    return _number(text, written, f"is not a duration ({DURATION_FORM})")


def money(text: str) -> float:
    """Return the US$ in `text`, 0 or more. Raise ValueError, whose message begins with the text."""
    written = text.strip().lower().removeprefix("us").lstrip().removeprefix("$")
    return _number(text, written, f"is not an amount of money ({MONEY_FORM})")


def _number(text: str, written: str, otherwise: str) -> float:
    try:
        number = float("" if "_" in written else written)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{text!r:.80} {otherwise}")
    return number
