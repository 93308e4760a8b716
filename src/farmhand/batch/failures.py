"""Why lines of a batch failed, and which answers are not whole: the most frequent causes, and where they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from farmhand.batch.journal import Journal
from farmhand.core.readable import CUT_OFF

#: How many causes and line numbers are told.
CAUSES = 3
LINES = 5


class FailureCause(NamedTuple):
    """Failures with the same code: the first one's message, how many there are, and the numbers of the first lines."""

    code: str
    message: str
    hint: str
    times: int
    lines: list[int]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return self._asdict()


class _FailedWith(msgspec.Struct):
    code: str = ""
    message: str = ""
    hint: str = ""


class _Stopped(msgspec.Struct):
    stop_reason: Any = ""


class _Ended(msgspec.Struct):
    state: str
    error: _FailedWith | None = None


def cut_short(journal: Journal) -> dict[str, Any]:
    """Return for JSON how many answers were cut off before their end, and the numbers of the first lines."""
    found = [
        n
        for reason in CUT_OFF
        # The words alone may be in a column of the input or in a structured answer.
        for n, line in journal.ended_with(f'"stop_reason":"{reason}"'.encode())
        if msgspec.json.decode(line, type=_Stopped).stop_reason == reason
    ]
    return {"times": len(found), "lines": sorted(found)[:LINES]}


def causes(journal: Journal) -> list[FailureCause]:
    """Return the causes of all failed and cancelled lines, the most frequent one first."""
    found: dict[str, FailureCause] = {}
    for n, line in journal.failures():
        try:
            ended = msgspec.json.decode(line, type=_Ended)
        except msgspec.ValidationError:  # a host's own idea of an error
            ended = _Ended(state="failed")
        problem = ended.error or _FailedWith()
        code = problem.code or ended.state
        cause = found.get(code) or FailureCause(code, problem.message, problem.hint, 0, [])
        found[code] = cause._replace(times=cause.times + 1, lines=[*cause.lines, n][:LINES])
    return sorted(found.values(), key=lambda cause: -cause.times)
