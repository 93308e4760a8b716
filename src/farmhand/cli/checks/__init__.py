"""The checks of `farmhand doctor`. Each returns one line about what it found, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from farmhand.cli.say import one_line
from farmhand.core.errors import FarmhandError, WireError
from farmhand.core.keys import without_secrets


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor's output. `state` is green, red, unknown (undecidable) or left_out (skipped on request).

    `run` sets `name` and `host`; the host is "" for the workstation.
    """

    name: str = ""
    host: str = ""
    state: str
    detail: str
    fix: str = ""

    @property
    def ok(self) -> bool | None:
        """True for green, False for red, None for the other states."""
        return {"green": True, "red": False}.get(self.state)

    @property
    def title(self) -> str:
        """The check's name, after its host's if it has one."""
        return f"{self.host} {self.name}".strip()

    def as_dict(self) -> dict[str, object]:
        """Return the check as a dict for JSON."""
        return vars(self) | {"ok": self.ok}


def passed(detail: str) -> Check:
    """Return a green check."""
    return Check(state="green", detail=_line(detail))


def failed(detail: str, fix: str) -> Check:
    """Return a red check with its fix."""
    return Check(state="red", detail=_line(detail), fix=_line(fix))


def untold(detail: str, fix: str) -> Check:
    """Return an undecided (yellow) check, with how to decide it."""
    return Check(state="unknown", detail=_line(detail), fix=_line(fix))


def by_error(error: FarmhandError, fix: str = "see farmhand doctor --json") -> Check:
    """Return a red check made from an error; its hint is the fix."""
    return failed(error.message, error.hint or fix)


def run(checks: Iterable[tuple[str, Callable[[], Check]]], skipped: Collection[str], host: str = "") -> list[Check]:
    """Run the checks in order and return their lines. An exception in one becomes its red line and stops no other."""
    lines: list[Check] = []
    for name, check in checks:
        try:
            line = Check(state="left_out", detail="left out") if name in skipped else check()
        except FarmhandError as error:
            line = by_error(error.at(host) if isinstance(error, WireError) else error)
        except Exception as error:  # a broken check must show as red and must not stop the others
            line = failed(f"{type(error).__name__}: {error}", "this is a fault of farmhand: report it")
        lines.append(replace(line, name=name, host=host))
    return lines


def joined(lines: Sequence[Check]) -> Check:
    """Return one check made of several: it is as the worst of them is, and has the fixes of those that are so."""
    state = min((line.state for line in lines), key=("red", "unknown", "green").index)
    fixes = dict.fromkeys(line.fix for line in lines if line.state == state and line.fix)
    detail = "; ".join(f"{line.name}: {line.detail}" for line in lines)
    return Check(state=state, detail=_line(detail), fix=_line("; ".join(fixes)))


def _line(text: str) -> str:
    """Return `text` as one line, without keys and terminal control characters."""
    return one_line(without_secrets(text))
