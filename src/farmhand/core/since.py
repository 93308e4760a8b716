"""The day that the option --since names."""

from __future__ import annotations

import re
from datetime import date, timedelta

from farmhand.core.errors import UsageError

_SPAN = re.compile(r"([1-9]\d{0,4})([dw])", re.ASCII)
_EPOCH = date(1970, 1, 1)


def since_day(text: str | None, today: date) -> int:
    """Return the day (since 1970) given by `--since`; 0 for all. Raises UsageError."""
    if text is None:
        return 0
    if span := _SPAN.fullmatch(text):
        # Today counts as the last of the requested days.
        days = int(span[1]) * (7 if span[2] == "w" else 1)
        return max(0, (today - _EPOCH).days - days + 1)
    try:
        day = date.fromisoformat(f"{text}-01" if re.fullmatch(r"\d{4}-\d{2}", text) else text)
    except ValueError:
        raise UsageError(f"--since {text!r}: not a day", hint="2026-11-01, 2026-11, 30d or 4w") from None
    if not _EPOCH <= day <= today + timedelta(days=1):
        raise UsageError(f"--since {text}: that is not in the past")
    return (day - _EPOCH).days
