"""The `usage` of an answer: which of its figures are plausible, and their result.

Figures in a stream are cumulative, and gateways repeat some of them as zeros, so the highest value of each counts. A
figure that no answer can have (negative, a fraction, text, beyond any model, far beyond the request) is ignored, and
the answer's cost is then unknown.
"""

from __future__ import annotations

import re
from typing import Any

from farmhand.core.task import Usage
from farmhand.core.terms import KINDS, Terms

#: Above any real answer: contexts hold up to a million tokens, answers have up to 300,000.
_MOST_INPUT = 10_000_000
_MOST_OUTPUT = 1_000_000
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_WRITTEN, _WRITTEN_1H = "cache_creation_input_tokens", "cache_creation_1h_input_tokens"
_MOST = dict.fromkeys(_INPUT, _MOST_INPUT)
#: Output tokens allowed above twice the request's limit: a pass may add some of its own.
_SLACK_OUTPUT = 1000
#: Source: the prompt caching reference. Caching for an hour costs more than for 5 minutes.
_KEPT = frozenset({"ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"})
#: Passes over the prompt at the price of the request's model. Source: the compaction guide.
_PASSES = frozenset({None, "message", "compaction"})
_MAX_PASSES = 100
#: A term, such as `not_available`.
_WORD = re.compile(r"[A-Za-z0-9._:-]{1,40}")


def count(value: Any, most: int) -> int | None:
    """Return `value` if it is a plausible token count up to `most` (12.0 is 12), otherwise None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None


class UsageFigures:
    """Collects the usage reports of one answer. `told`: there was one. `max_tokens`: the request's, or 0 for any."""

    def __init__(self, max_tokens: int = 0) -> None:
        asked = 2 * max_tokens + _SLACK_OUTPUT
        self._most = _MOST | {"output_tokens": min(asked, _MOST_OUTPUT) if max_tokens else _MOST_OUTPUT}
        self.told = False
        self._counts: dict[str, int] = {}
        self._odd: set[str] = set()
        self._terms: dict[str, str] = {}
        self._output_told = False

    def take(self, told: Any, *, first: bool = False) -> None:
        """Add a report. `first`: it is a stream's start, whose output tokens are only those so far."""
        if not isinstance(told, dict):
            return
        self.told = True
        counts, odd = _counts(told, self._most)
        sums, more = _passes(told.get("iterations"), self._most)
        for name, number in (*counts.items(), *sums.items()):
            if number > self._counts.get(name, 0):
                self._counts[name] = number
        # The latest report of a figure decides whether it is plausible.
        self._odd = {name for name in self._odd if told.get(name) is None} | odd | more
        if not first:
            self._output_told = self._output_told or "output_tokens" in counts
        for kind in KINDS:
            value = told.get(kind)
            if isinstance(value, str) and _WORD.fullmatch(value):
                self._terms[kind] = value
            elif value not in (None, ""):
                self._odd.add(kind)

    def doubt(self, name: str) -> None:
        """Mark the figures as incomplete, with `name` as the reason."""
        self._odd.add(name)

    def usage(self, seen: int = 0) -> Usage:
        """Return the counts, with at least `seen` output tokens."""
        usage = Usage(requests=1, **self._counts)
        usage.output_tokens = max(usage.output_tokens, seen)
        return usage

    def terms(self, *, whole: bool, wrote: bool) -> Terms:
        """Return the terms of the answer. `whole`: it is complete. `wrote`: it has content."""
        unknown = set(self._odd)
        if not any(self._counts.get(name) for name in _INPUT):
            unknown.add("input_tokens")
        if whole and (not self._output_told or (wrote and not self._counts.get("output_tokens"))):
            unknown.add("output_tokens")
        if not whole:
            unknown.discard("output_tokens")
        return Terms(unknown=tuple(sorted(unknown)), estimated=not whole, **self._terms)


def usage_of(told: Any, *, wrote: bool = True, max_tokens: int = 0) -> tuple[Usage, Terms]:
    """Return usage and terms from the decoded `usage` of one whole message. `wrote`: the message has content.

    `max_tokens` is as for UsageFigures.
    """
    figures = UsageFigures(max_tokens)
    figures.take(told)
    return figures.usage(), figures.terms(whole=True, wrote=wrote)


def _counts(told: dict[str, Any], bounds: dict[str, int]) -> tuple[dict[str, int], set[str]]:
    """Return the counts of one report, and the names of implausible ones. A null is treated as missing."""
    counts: dict[str, int] = {}
    odd: set[str] = set()
    for name, most in bounds.items():
        if (value := told.get(name)) is not None:
            believed = count(value, most)
            if believed is None:
                odd.add(name)
            else:
                counts[name] = believed
    kept = told.get("cache_creation")
    if kept is not None:
        parts = {name: count(value or 0, _MOST_INPUT) for name, value in kept.items()} if isinstance(kept, dict) else {}
        if not isinstance(kept, dict) or None in parts.values() or any(parts[name] for name in parts.keys() - _KEPT):
            odd.add("cache_creation")
        else:
            written = sum(part or 0 for part in parts.values())
            counts[_WRITTEN] = max(counts.get(_WRITTEN, 0), written)
            counts[_WRITTEN_1H] = parts.get("ephemeral_1h_input_tokens") or 0
    # Tools that run at the API have prices that token counts do not show.
    used = told.get("server_tool_use")
    if used is not None and (not isinstance(used, dict) or any(used.values())):
        odd.add("server_tool_use")
    return counts, odd


def _passes(told: Any, bounds: dict[str, int]) -> tuple[dict[str, int], set[str]]:
    """Return the sums over an answer's passes: the tokens of a compaction are reported nowhere else."""
    if told is None:
        return {}, set()
    if not isinstance(told, list) or len(told) > _MAX_PASSES:
        return {}, {"iterations"}
    sums: dict[str, int] = {}
    odd: set[str] = set()
    for one in told:
        kind = one.get("type") if isinstance(one, dict) else ""
        if not isinstance(kind, str | None) or kind not in _PASSES or one.get("model") is not None:
            odd.add("iterations")
            continue
        counts, wrong = _counts(one, bounds)
        odd |= {"iterations"} if wrong else set()
        for name, value in counts.items():
            sums[name] = sums.get(name, 0) + value
    if any(value > bounds.get(name, _MOST_INPUT) for name, value in sums.items()):
        return {}, {"iterations"}
    return sums, odd
