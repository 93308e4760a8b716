"""Amounts as people read them: money, durations, sizes and counts in one form everywhere. Tables have exact figures.

And texts of others, without what a terminal would do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from .money import pico_of, usd

#: Characters of remote text that must not reach a terminal. C0 (but tab and line feed), DEL and C1 are terminal
#: commands. Direction marks make text read as another text. Lone surrogates cannot be encoded.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: Digits of an amount below US$ 1, from the first that is not zero.
_DIGITS = 3
#: Of each unit: how many of the one before, and from how many of that on it is used.
_TIMES = (("s", 1, 0), ("min", 60, 90), ("h", 60, 60), ("days", 24, 48))
_SIZES = ("bytes", "KB", "MB", "GB", "TB")
#: Stop reasons of an answer that is not finished, and where it ends.
CUT_OFF = {"max_tokens": "its longest length", "model_context_window_exceeded": "the end of the model's context"}


def money(amount_pico: int) -> str:
    """Return pico-dollars as `US$ 12.30` or `US$ 0.0000354`: to cents, below US$ 1 to three digits; no exponent."""
    amount = usd(amount_pico)
    places = 2 if amount == 0 or abs(amount) >= 1 else max(2, _DIGITS - 1 - amount.adjusted())
    text = f"{amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN):f}"
    whole, _, rest = text.partition(".")
    return f"US$ {int(whole):,}.{rest}" if abs(amount) >= 1 else f"US$ {whole}.{rest.rstrip('0'):0<2}"


def dollars(amount: float | Decimal) -> str:
    """Return US$ in the form of `money`."""
    return money(pico_of(amount))


def duration(seconds: float) -> str:
    """Return a time as `0.25 s`, `4.1 s`, `5 min`, `2.5 h` or `3 days`."""
    value, unit = float(seconds), "s"
    for name, size, least in _TIMES[1:]:
        if value < least:
            break
        value, unit = value / size, name
    return f"{_short(value)} {unit}"


def size(count: float) -> str:
    """Return a number of bytes as `133 bytes`, `51 KB` or `1.2 GB` (powers of 1000)."""
    value, unit = float(count), _SIZES[0]
    for name in _SIZES[1:]:
        if value < 1000:
            break
        value, unit = value / 1000, name
    return f"{_short(value)} {unit}"


def local_time(at: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return a time of this machine's zone, with the zone: days of budgets and figures are UTC."""
    return time.strftime(f"{form} %Z", time.localtime(at)).rstrip()


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return `1 task` or `1,200 tasks`. `plural` is for a noun that does not take an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def cut_off(result: Mapping[str, Any]) -> str:
    """Return how an answer was cut off and what helps, or "" if it was not. A failed task has its own error."""
    where = CUT_OFF.get(str(result.get("stop_reason")))
    if where is None or result.get("state") != "succeeded":
        return ""
    return f"the answer was cut off at {where}" + (" (raise --max-tokens)" if "length" in where else "")


def _short(value: float) -> str:
    """Return two digits that count, all whole ones, and no zeros at the end."""
    if abs(value) >= 10:
        return f"{value:.0f}"
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 1 else f"{value:.2g}"


def printable(text: str) -> str:
    """Return `text` with the characters of CONTROL replaced by U+FFFD."""
    return CONTROL.sub("\ufffd", text)
