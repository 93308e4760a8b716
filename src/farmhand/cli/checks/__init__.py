"""The checks behind `farmhand doctor`. Each looks, says what it saw in one line, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from farmhand.cli.say import one_line
from farmhand.core.errors import FarmhandError, WireError
from farmhand.core.keys import without_secrets


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the screen. `state` is green, red, unknown (it could not be told), or left_out, as was asked.

    `run` sets the name and the host, "" for the workstation.
    """

    state: str
    detail: str
    fix: str = ""
    name: str = ""
    host: str = ""

    @property
    def ok(self) -> bool | None:
        """True for green, False for red."""
        return {"green": True, "red": False}.get(self.state)

    @property
    def title(self) -> str:
        """Name the check, with its host."""
        return f"{self.host} {self.name}".strip()

    def as_dict(self) -> dict[str, object]:
        """As plain data."""
        given = {"name": self.name, "host": self.host, "ok": self.ok, "state": self.state}
        return {**given, "detail": self.detail, "fix": self.fix}


def passed(detail: str) -> Check:
    """A green line."""
    return Check(state="green", detail=_line(detail))


def failed(detail: str, fix: str) -> Check:
    """A red line with what to do."""
    return Check(state="red", detail=_line(detail), fix=_line(fix))


def untold(detail: str, fix: str) -> Check:
    """A yellow line: it could not be told. With what to do."""
    return Check(state="unknown", detail=_line(detail), fix=_line(fix))


def by_error(error: FarmhandError, fix: str = "see farmhand doctor --json") -> Check:
    """A red line from an error."""
    return failed(error.message, error.hint or fix)


def run(checks: Iterable[tuple[str, Callable[[], Check]]], skipped: Iterable[str], host: str = "") -> list[Check]:
    """Each check's line, in their order. What goes wrong inside of one is its own line and stops no other."""
    left_out = set(skipped)
    lines: list[Check] = []
    for name, check in checks:
        try:
            line = Check(state="left_out", detail="left out") if name in left_out else check()
        except FarmhandError as error:
            line = by_error(error.at(host) if isinstance(error, WireError) else error)
        except Exception as error:  # a check that breaks must show as red, not take the others with it
            line = failed(f"{type(error).__name__}: {error}", "this is a fault of farmhand: report it")
        lines.append(replace(line, name=name, host=host))
    return lines


def _line(text: str) -> str:
    """One line without a key and without what a terminal takes for a command."""
    return one_line(without_secrets(text))
