"""The rest after the changes, with instructions; and, in check mode, the expected result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from .names import HELPER, METERED, WATCHED
from .verdict import Location, Report, Source, Verdict
from .wanted import Wanted
from .ways import SESSION

_LOOK = "type claude there and see what /status says"


def foreseen(report: Report, done: Callable[[Source], bool]) -> Report:
    """Return the report if every change helps, as check mode cannot ask. `done`: whether a source would be handled."""
    sources = [dataclasses.replace(source, shells=[]) if done(source) else source for source in report.sources]
    still = {kind for source in sources for kind in source.shells if source.name in (*METERED, HELPER)}
    verdicts = [_freed(v, report) if v.metered and v.kind not in still else v for v in report.verdicts]
    return dataclasses.replace(report, sources=sources, verdicts=verdicts)


def left(report: Report, wanted: Wanted, reason: Callable[[Source], str | None]) -> list[str]:
    """Return what is still wrong, each with what to do. `reason` gives why a source remains, None if it does not."""
    said: dict[str, None] = {}
    told: set[str] = set()
    for source in report.reaching:
        why = f": {reason(source)}" if reason(source) else None
        if source.name in wanted.keep:
            why = ", as workstation_keep says"
        if why:
            said[f"{source} is left{why}"] = None
            told |= set(source.shells)
    for name in WATCHED:
        if wanted.environ.get(name) and name in METERED and name not in wanted.keep:
            said[f"{name} in {Location(None)} is left: {SESSION}"] = None
    grouped: dict[str, list[str]] = {}
    for verdict in report.verdicts:
        if verdict.unknown:
            at = f" at {verdict.stopped_at}" if verdict.stopped_at else ""
            grouped.setdefault(f"who pays cannot be told ({verdict.reason}{at})", []).append(verdict.kind)
        elif verdict.metered and verdict.kind not in told:
            name = verdict.base_url or verdict.credential
            grouped.setdefault(f"{name} reaches claude, and where it is set was not found", []).append(verdict.kind)
    said |= {f"{', '.join(kinds)}: {what}; {_LOOK}": None for what, kinds in grouped.items()}
    return [*said, *(f"{problem} (left as it is)" for problem in report.problems)]


def _freed(verdict: Verdict, report: Report) -> Verdict:
    """Return the verdict of a kind of shell that nothing metered reaches any more."""
    billed = "subscription" if report.logged_in else "none"
    return Verdict(verdict.shell, verdict.mode, "login" if report.logged_in else "none", billed, how="foreseen")
