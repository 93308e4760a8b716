"""The ways to keep a setting from `claude`, the best first. Only the shells show whether one works."""

from __future__ import annotations

from pathlib import Path

from . import guard, scan
from .draft import Draft
from .edit import Change
from .kinds import Kind
from .names import HELPER, METERED, WATCHED
from .verdict import Location, Source
from .wanted import Wanted

#: One way: changes that belong together.
Way = list[tuple[Draft, Change]]
#: The identity of a place that sets a name: name, file, line in the original file, how it is set and through which
#: statement. Settings in a file sourced by several others must be handled after each of those statements.
Spot = tuple[str, Path | None, int, str]
SESSION = "the running session still has it: log in again, or open a new terminal"
#: Cases in which changes to a start-up file do not help, because the code that sets the name runs later.
_LATER = {
    "alias": "an alias over claude sets it: take it out there, or type `command claude`",
    "function": "a function that runs when claude is typed sets it: take it out there, or type `command claude`",
    "prompt": "a hook of the prompt (direnv, mise, precmd …) sets it: take it out of what that loads",
}
#: Start-up files that each shell reads by itself, so that an `unset` at the end is reliable.
_STARTS = frozenset(
    {
        *(".bash_profile", ".bash_login", ".bashrc", ".profile"),
        *(".zshenv", ".zprofile", ".zshrc", ".zlogin", "config.fish"),
    }
)


class Ways:
    """The files that may have to change, each as a draft, and the possible changes in them."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.drafts: dict[Path, Draft] = {}

    def spot(self, source: Source) -> Spot:
        """Return the spot of `source`, independent of lines that have moved in its file since."""
        path, line = self._original(source.location)
        through = self._original(source.through) if source.through else ()
        return source.name, path, line, " ".join(map(str, (source.via, *through)))

    def _original(self, location: Location) -> tuple[Path | None, int]:
        """Return a location in the file before any changes."""
        path = location.path and location.path.resolve()
        draft = self.drafts.get(path) if path else None
        return path, draft.original_line(location.line) if draft else location.line

    def of(self, source: Source) -> tuple[list[Way], str]:
        """Return the ways to handle `source`, and the message if none of them is left."""
        location = source.location
        if location.path is None:
            if source.via == "manager":
                return [], f"systemd's user manager has it: systemctl --user unset-environment {source.name}"
            if source.via == "environment":
                return [], SESSION
        if location.path is not None and location.path.suffix == ".plist":
            return [], "it is set by the machine's management profile; ask who manages this machine"
        found: list[Way] = []
        reasons: list[str] = []
        shell = "" if source.via in ("settings", "file", "universal") else source.shell
        for place in dict.fromkeys(p for p in (location, source.through if shell else None) if p and p.path):
            reason = self._at(source, place, shell, found)
            reasons += [reason] if reason else []
        if shell and source.via not in _LATER and self.wanted.ask_shell:
            found += [way for way in self._ends(source) if way and way not in found]
        reason = _LATER.get(source.via) or next(iter(reasons), "")
        return found, reason or "it cannot be taken out without changing what else stands there; take it out by hand"

    def _at(self, source: Source, place: Location, shell: str, found: list[Way]) -> str | None:
        """Add the ways at one place to `found`. Return the reason if the file has to stay unchanged."""
        path = place.path
        assert path is not None  # noqa: S101 - the caller has looked
        if reason := self.why_not(path):
            return reason
        draft = self.draft(path, shell)
        if draft is None:
            return f"{path} cannot be read"
        if not draft.script.understood:
            line = guard.syntax_error(draft.script.text, shell)
            if not line:
                return guard.no_answer(shell, path)
            return f"{shell} does not accept {path} (line {line}); correct that first"
        line = draft.original_line(place.line)
        if draft.json or not shell:
            shown = "" if draft.json else draft.script.masked(line, WATCHED)
            found.append([(draft, Change(line, line, shown))])
            return None
        whole = draft.script.assignment(line)
        if whole and source.name in whole[2].names and all(self.goes(name) for name in whole[2].names):
            first, last, what = whole
            if self.for_others(path, what.shown):
                return None
            found.append([(draft, Change(first, last, f"{what.shown}  {what.comment}".rstrip()))])
        span = draft.script.statement(line)
        if source.via in _LATER or not self.wanted.ask_shell or span is None or self.for_others(path, "export"):
            return None
        if not draft.script.defines(span[0]) and not draft.script.unset_already(span[1], source.name):
            found.append([(draft, Change(span[1], span[1]))])
        return None

    def goes(self, name: str) -> bool:
        """Return whether the name has to be removed."""
        return name in (*METERED, HELPER) and name not in self.wanted.keep

    def for_others(self, path: Path, shown: str) -> bool:
        """Return whether other programs need the file unchanged: the key file, a .env file, generated files."""
        home = self.wanted.home.resolve()
        path = path.resolve()
        generated = path.is_relative_to(home / ".cache")
        plain = not shown.startswith(("export", "declare", "typeset", "readonly", "set", "builtin", "command"))
        return path == self.wanted.key_file.resolve() or generated or (plain and path.name not in _STARTS)

    def why_not(self, path: Path) -> str | None:
        """Return why the file has to stay unchanged; None if it may be changed."""
        if self.wanted.of_project(path) and not self.wanted.edit_project:
            return "it is the project's file; take it out there, or set workstation_edit_project"
        return guard.refusal(path, self.wanted.home)

    def draft(self, path: Path, shell: str) -> Draft | None:
        """Return the draft of the file; None if it cannot be read."""
        target = path.resolve()
        if target not in self.drafts:
            try:
                self.drafts[target] = Draft(target, shell)
            except OSError:
                return None
        return self.drafts[target]

    def _ends(self, source: Source) -> list[Way]:
        """Return `unset`s at the end of the start-up file that sets the name, or of the last one of each kind."""
        named = [place.path for place in (source.location, source.through) if place and place.path]
        own = [(path, source.shell) for path in named if path.name in _STARTS]
        last = [(path, kind.split()[0]) for kind in source.shells if (path := self.last_start(kind))]
        return [
            list(dict.fromkeys(change for path, shell in files for change in self._end(path, shell, source)))
            for files in (own, last)
        ]

    def _end(self, path: Path, shell: str, source: Source) -> Way:
        draft = None if self.why_not(path) else self.draft(path, shell)
        if draft is None or not draft.script.understood or not draft.script.shell:
            return []
        return [] if draft.script.unset_already(_before_end(draft), source.name) else [(draft, draft.script.end)]

    def last_start(self, kind: str) -> Path | None:
        """Return the last start-up file in the home that a shell of this kind reads."""
        shell, _, mode = kind.partition(" ")
        files = scan.files(Kind(shell, mode, shell), self.wanted.home, self.wanted.environ, self.wanted.root)
        own = [path for path in files if path.name in _STARTS and path.is_relative_to(self.wanted.home)]
        return next((path for path in reversed(own) if path.is_file()), None)


def _before_end(draft: Draft) -> int:
    """Return the line after which only the last statement follows."""
    lines = draft.script.lines
    last = next((n for n in range(len(lines), 0, -1) if lines[n - 1].strip()), 0)
    return max(0, last - 1)
