"""The ways to keep a setting from `claude`, the best first. Only the shells show whether one works."""

from __future__ import annotations

from pathlib import Path

from . import scan
from .draft import Draft, refusal
from .edit import Change, no_answer
from .kinds import Kind
from .names import HELPER, METERED
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


class Unchangeable(Exception):
    """The reason why a file has to stay unchanged."""


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
        reason = _LATER.get(source.via, "")
        shell = "" if source.via in ("settings", "file", "universal") else source.shell
        places = [place for place in (location, source.through if shell else None) if place]
        for path, line in dict.fromkeys((place.path, place.line) for place in places):
            try:
                found += self._at(source, self.open(path, shell), line, shell) if path else []
            except Unchangeable as error:
                reason = reason or str(error)
        if shell and self._may_unset(source):
            found += [way for way in self._ends(source) if way and way not in found]
        return found, reason or "it cannot be taken out without changing what else stands there; take it out by hand"

    def open(self, path: Path, shell: str) -> Draft:
        """Return the draft of the file. Raises Unchangeable."""
        if self.wanted.of_project(path) and not self.wanted.edit_project:
            raise Unchangeable("it is the project's file; take it out there, or set workstation_edit_project")
        if reason := refusal(path, self.wanted.home):
            raise Unchangeable(reason)
        target = path.resolve()
        if target not in self.drafts:
            try:
                self.drafts[target] = Draft(target, shell)
            except OSError:
                raise Unchangeable(f"{path} cannot be read") from None
        script = self.drafts[target].script
        if script.error == 0:
            raise Unchangeable(no_answer(script.shell, path))
        if script.error:
            raise Unchangeable(f"{script.shell} does not accept {path} (line {script.error}); correct that first")
        return self.drafts[target]

    def _at(self, source: Source, draft: Draft, line: int, shell: str) -> list[Way]:
        """Return the ways at one line."""
        script, line = draft.script, draft.original_line(line)
        if draft.json or not shell:
            return [[(draft, Change(line, line, "" if draft.json else script.masked(line)))]]
        found: list[Way] = []
        whole = script.assignment(line)
        if whole and source.name in whole.names and all(self.goes(name) for name in whole.names):
            if self.for_others(draft.path, whole.shown):
                return []
            found.append([(draft, Change(whole.first, whole.last, f"{whole.shown}  {whole.comment}".rstrip()))])
        change = script.unset_after(line, source.name)
        if change and self._may_unset(source) and not self.for_others(draft.path, "export"):
            found.append([(draft, change)])
        return found

    def _may_unset(self, source: Source) -> bool:
        return source.via not in _LATER and self.wanted.ask_shell

    def goes(self, name: str) -> bool:
        """Return whether the name has to be removed."""
        return name in (*METERED, HELPER) and name not in self.wanted.keep

    def for_others(self, path: Path, shown: str) -> bool:
        """Return whether other programs need the file unchanged: the key file, a .env file, generated files."""
        generated = path.is_relative_to(self.wanted.home.resolve() / ".cache")
        plain = not shown.startswith(("export", "declare", "typeset", "readonly", "set", "builtin", "command"))
        return path == self.wanted.key_file.resolve() or generated or (plain and path.name not in _STARTS)

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
        try:
            draft = self.open(path, shell)
        except Unchangeable:
            return []
        change = draft.script.unset_at_end(source.name)
        return [(draft, change)] if change else []

    def last_start(self, kind: str) -> Path | None:
        """Return the last start-up file in the home that a shell of this kind reads."""
        shell, _, mode = kind.partition(" ")
        files = scan.files(Kind(shell, mode, shell), self.wanted.home, self.wanted.environ, self.wanted.root)
        own = [path for path in files if path.name in _STARTS and path.is_relative_to(self.wanted.home)]
        return next((path for path in reversed(own) if path.is_file()), None)
