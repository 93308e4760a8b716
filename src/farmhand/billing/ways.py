"""The ways to keep a setting from `claude`: the best first. Whether one works is for the shells to say."""

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
#: What tells one place that sets a name from another: name, file, line of the file as it was, how it is set and through
#: which statement: what several files source has to be dealt with behind each of them.
Spot = tuple[str, Path | None, int, str]
SESSION = "the running session still has it: log in again, or open a new terminal"
#: Where nothing that is put into a start-up file helps: what sets it runs later.
_LATER = {
    "alias": "an alias over claude sets it: take it out there, or type `command claude`",
    "function": "a function that runs when claude is typed sets it: take it out there, or type `command claude`",
    "prompt": "a hook of the prompt (direnv, mise, precmd …) sets it: take it out of what that loads",
}
#: Start-up files: each shell reads its own by itself, and an `unset` at the end of one is a sound place.
_STARTS = frozenset(
    {
        *(".bash_profile", ".bash_login", ".bashrc", ".profile"),
        *(".zshenv", ".zprofile", ".zshrc", ".zlogin", "config.fish"),
    }
)


class Ways:
    """The files that may have to change, each as a draft, and what can be done in them."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.drafts: dict[Path, Draft] = {}

    def spot(self, source: Source) -> Spot:
        """The place of `source`, however its file's lines have moved since."""
        path, line = self._original(source.location)
        through = self._original(source.through) if source.through else ()
        return source.name, path, line, " ".join(map(str, (source.via, *through)))

    def _original(self, location: Location) -> tuple[Path | None, int]:
        """A location in the file as it was before anything was changed in it."""
        path = location.path and location.path.resolve()
        draft = self.drafts.get(path) if path else None
        return path, draft.original_line(location.line) if draft else location.line

    def of(self, source: Source) -> tuple[list[Way], str]:
        """The ways to deal with `source`, and what to say where none of them is left."""
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
        """Add the ways at one place to `found`; the reason if there is none because the file has to stay as it is."""
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
        """Whether the name is one that has to go."""
        return name in (*METERED, HELPER) and name not in self.wanted.keep

    def for_others(self, path: Path, shown: str) -> bool:
        """Whether other programs need the file as it is: the key file, a .env file, what a program has generated."""
        home = self.wanted.home.resolve()
        path = path.resolve()
        generated = path.is_relative_to(home / ".cache")
        plain = not shown.startswith(("export", "declare", "typeset", "readonly", "set", "builtin", "command"))
        return path == self.wanted.key_file.resolve() or generated or (plain and path.name not in _STARTS)

    def why_not(self, path: Path) -> str | None:
        """Why the file has to stay as it is; None if it may be changed."""
        if self.wanted.of_project(path) and not self.wanted.edit_project:
            return "it is the project's file; take it out there, or set workstation_edit_project"
        return guard.refusal(path, self.wanted.home)

    def draft(self, path: Path, shell: str) -> Draft | None:
        """The draft of the file; None if it cannot be read."""
        target = path.resolve()
        if target not in self.drafts:
            try:
                self.drafts[target] = Draft(target, shell)
            except OSError:
                return None
        return self.drafts[target]

    def _ends(self, source: Source) -> list[Way]:
        """An `unset` at the end of the start-up file that sets the name, or of the last one of each kind it reaches."""
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
        """The last of its start-up files in the home that a shell of this kind reads."""
        shell, _, mode = kind.partition(" ")
        files = scan.files(Kind(shell, mode, shell), self.wanted.home, self.wanted.environ, self.wanted.root)
        own = [path for path in files if path.name in _STARTS and path.is_relative_to(self.wanted.home)]
        return next((path for path in reversed(own) if path.is_file()), None)


def _before_end(draft: Draft) -> int:
    """The line after which only the last statement stands."""
    lines = draft.script.lines
    last = next((n for n in range(len(lines), 0, -1) if lines[n - 1].strip()), 0)
    return max(0, last - 1)
