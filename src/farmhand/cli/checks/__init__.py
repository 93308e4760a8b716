"""The checks behind `farmhand doctor`. Each looks, says what it saw in one line, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from farmhand.cli.say import printable
from farmhand.core.errors import FarmhandError
from farmhand.core.keys import without_secrets


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the screen. `host` "" stands for the workstation; `ok` None: left out, as was asked.

    `unknown`: it could not be told, so it is neither green nor red; `ok` is None then as well.
    """

    name: str
    ok: bool | None
    detail: str
    fix: str = ""
    host: str = ""
    unknown: bool = False

    @property
    def state(self) -> str:
        """green, red, unknown or left_out."""
        return "unknown" if self.unknown else {True: "green", False: "red", None: "left_out"}[self.ok]

    def as_dict(self) -> dict[str, object]:
        """As plain data."""
        given = {"name": self.name, "host": self.host, "ok": self.ok, "state": self.state}
        return {**given, "detail": self.detail, "fix": self.fix}


def passed(name: str, detail: str, host: str = "") -> Check:
    """A green line."""
    return Check(name=name, ok=True, detail=_line(detail), host=host)


def failed(name: str, detail: str, fix: str, host: str = "") -> Check:
    """A red line with what to do."""
    return Check(name=name, ok=False, detail=_line(detail), fix=_line(fix), host=host)


def untold(name: str, detail: str, fix: str, host: str = "") -> Check:
    """A yellow line: nobody knows, with what to do."""
    return Check(name=name, ok=None, unknown=True, detail=_line(detail), fix=_line(fix), host=host)


def by_error(name: str, error: FarmhandError, host: str = "", fix: str = "see farmhand doctor --json") -> Check:
    """A red line from an error."""
    return failed(name, error.message, error.hint or fix, host)


def run(checks: Iterable[tuple[str, Callable[[], Check]]], skipped: Iterable[str], host: str = "") -> list[Check]:
    """Each check's line, in their order. What goes wrong inside of one is its own line and stops no other."""
    left_out = set(skipped)
    lines: list[Check] = []
    for name, check in checks:
        if name in left_out:
            lines.append(Check(name=name, ok=None, detail="left out", host=host))
            continue
        try:
            lines.append(check())
        except FarmhandError as error:
            lines.append(by_error(name, error, host))
        except Exception as error:  # a check that breaks must show as red, not take the others with it
            lines.append(
                failed(name, f"{type(error).__name__}: {error}", "this is a fault of farmhand: report it", host)
            )
    return lines


def _line(text: str) -> str:
    """One line without a key and without what a terminal takes for a command."""
    return printable(" ".join(without_secrets(text).split()))


__all__ = ["Check", "by_error", "failed", "passed", "run", "untold"]
