"""What has to change so that an interactive `claude` runs on the subscription alone. Nothing is written here.

The search is repeated over the files as they would be, until nothing is left that can be taken out. So what one setting
hid, and what the key in its new place would bring in again (a file that sources ~/repos.env), is seen to as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..wire.keys import fingerprint, is_key, redact
from . import jsontext, keyfile
from .edit import Cut, comment_line, edit
from .guard import refusal, syntax_error
from .keyfile import Refused
from .names import HELPER, KEY, SECRETS
from .search import find
from .state import Place
from .verdict import Report, Source

_ROUNDS = 12
_SESSION = "the running session still has it: log in again, or open a new terminal"


@dataclass(frozen=True)
class Wanted:
    """What the operator asked for. `keep`: names that stay; `chosen`: the key's fingerprint, if there are several."""

    home: Path
    key_file: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    root: Path = Path("/")
    keep: Sequence[str] = ()
    chosen: str = ""
    edit_project: bool = False
    ask: bool = True
    date: str = ""


@dataclass
class Plan:
    """`files`: by resolved path, (content now or None, content to be). `left`: what stays, with the reason."""

    before: Report
    after: Report
    files: dict[Path, tuple[bytes | None, bytes]]
    moved: list[str]
    left: list[str]
    hints: list[str]


def make(wanted: Wanted) -> Plan:
    """The plan. Raises Refused with one line where the operator has to decide or to correct something first."""
    return _Planner(wanted).plan()


class _Planner:
    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.planned: dict[Path, bytes] = {}
        self.left: dict[tuple[str, str], str] = {}
        self.stuck: set[tuple[Path, str]] = set()
        self.secrets: dict[str, dict[str, list[Source]]] = {name: {} for name in SECRETS}
        self.hints: dict[str, None] = {}
        self.moved: dict[str, None] = {}

    def look(self) -> Report:
        w = self.wanted
        return find(w.home, w.environ, w.cwd, root=w.root, ask=w.ask, planned=self.planned)

    def plan(self) -> Plan:
        before = after = self.look()
        for _ in range(_ROUNDS):
            todo = self.sort(after)
            self.keep_secrets()
            for path, sources in todo.items():
                self.take_out(path, sources)
            after = self.look()
            if not todo:
                break
        files = {}
        for path, new in self.planned.items():
            old = path.read_bytes() if path.exists() else None
            if new != old:
                files[path] = (old, new)
        self.remains(files)
        for place in after.hidden:
            self.hints[f"an alias or function {place} hides the command: remove it there"] = None
        problems = [f"{p} (left as it is)" for p in before.problems if not p.path.is_relative_to(self.wanted.key_file)]
        return Plan(before, after, files, list(self.moved), [*self.left.values(), *problems], list(self.hints))

    def remains(self, files: Mapping[Path, tuple[bytes | None, bytes]]) -> None:
        """Tell where the key itself is still written, though nothing brings it to `claude` from there."""
        for path, (_, new) in files.items():
            for value in self.secrets[KEY]:
                at = new.find(value.encode())
                if at >= 0 and path != self.wanted.key_file.resolve():
                    line = new.count(b"\n", 0, at) + 1
                    self.hints[f"the key is still written in {path}:{line}, which does not reach claude"] = None

    # What is to be done

    def sort(self, report: Report) -> dict[Path, list[Source]]:
        """By file, what reaches `claude` and can be taken out; the rest is noted as left."""
        todo: dict[Path, list[Source]] = {}
        for source in report.reaching:
            if source.name in self.wanted.keep:
                continue
            if source.text and source.name in SECRETS:
                self.secrets[source.name].setdefault(source.text, []).append(source)
            place = self.where(source)
            reason = self.why_not(source, place, report)
            if reason:
                self.left.setdefault((source.name, str(source.place)), f"{source} is left: {reason}")
            elif place.path is not None:
                todo.setdefault(place.path, []).append(source)
                self.hint(source)
        return todo

    def where(self, source: Source) -> Place:
        """What has to be edited: where it is set, or the command that brings in a file which keeps it."""
        path = source.place.path
        from_outside = source.through is not None and source.via == "file"
        if source.through is not None and (from_outside or path == self.wanted.key_file):
            return source.through
        return source.place

    def why_not(self, source: Source, place: Place, report: Report) -> str | None:
        if place.path is None:
            if source.via == "manager":
                return f"systemd's user manager has it: systemctl --user unset-environment {source.name}"
            return _SESSION
        if self.of_project(place.path) and not self.wanted.edit_project:
            return "it is the project's file; take it out there, or set workstation_edit_project"
        problem = next((p for p in report.problems if p.path == place.path), None)
        if problem:
            return f"the file is {problem.reason.split(':')[0]} (line {problem.line})"
        if place.path.suffix == ".plist":
            return "it is set by the machine's management profile; ask who manages this machine"
        if (place.path, source.name) in self.stuck:
            return "it cannot be taken out without changing what else stands there; comment it out by hand"
        return refusal(place.path, self.wanted.home)

    def of_project(self, path: Path) -> bool:
        cwd, home = self.wanted.cwd, self.wanted.home
        return cwd is not None and cwd != home and (path.is_relative_to(cwd) or path.name == ".envrc")

    def hint(self, source: Source) -> None:
        """A command that gives the key can be the key's source; it is not run here."""
        if source.text is not None or source.name not in (KEY, HELPER):
            return
        if source.command.endswith("…"):
            advice = 'put it into a script, and key_source = "command:SCRIPT" into config.toml'
            self.hints[f"the key came from a command ({source.command}): {advice}"] = None
        elif source.command:
            advice = f'key_source = "command:{source.command}" in config.toml uses it'
            self.hints[f"the key came from a command: {advice}"] = None

    # The key

    def keep_secrets(self) -> None:
        """Put the key that was found into the key file. Raises Refused for two different ones."""
        path = self.wanted.key_file.resolve()
        old = self.planned.get(path)
        if old is None:
            old = path.read_bytes() if path.exists() else b""
        text = old.decode("utf-8", "surrogateescape")
        for name in SECRETS:
            value = self.choose(name, text)
            if value is None:
                continue
            if path.exists() and (reason := refusal(self.wanted.key_file, self.wanted.home)):
                raise Refused(f"{self.wanted.key_file} cannot take the key: {reason}; nothing was changed")
            text = keyfile.with_value(text, self.wanted.key_file, name, value)
            self.moved[f"{name} ({fingerprint(value)}) to {self.wanted.key_file}"] = None
        new = text.encode("utf-8", "surrogateescape")
        if new != old:
            self.planned[path] = new

    def choose(self, name: str, text: str) -> str | None:
        """The value of `name` to write into the key file; None if there is nothing to write."""
        found = dict(self.secrets[name])
        in_files = {value: sources for value, sources in found.items() if any(s.place.path for s in sources)}
        found = in_files or found
        if not found:
            return None
        there = keyfile.parse(text, self.wanted.key_file).get(name)
        if not in_files and there:
            return None  # the session is older than the file
        values = [value for value in found if name != KEY or is_key(value)]
        if not values:
            self.hints["the value is no Anthropic API key (sk-ant-…), so it stays in the backup only"] = None
            return None
        candidates = dict.fromkeys([*([there] if there else []), *values])
        if len(candidates) == 1:
            return None if there else values[0]
        if name != KEY:
            self.hints[f"several values of {name} were found; they stay in the backups only"] = None
            return None
        chosen = [value for value in candidates if self.wanted.chosen and fingerprint(value) == self.wanted.chosen]
        if chosen:
            return None if chosen[0] == there else chosen[0]
        places = {value: next((str(s.place) for s in found.get(value, [])), "") for value in candidates}
        listed = ", ".join(f"{fingerprint(v)} ({places[v] or self.wanted.key_file})" for v in candidates)
        raise Refused(
            f"{len(candidates)} different keys were found: {listed}; nothing was changed. "
            f"Say which one to keep: -e workstation_key=FINGERPRINT"
        )

    # The files

    def take_out(self, path: Path, sources: list[Source]) -> None:
        """Plan the file without `sources`; what cannot be taken out cleanly is not tried again."""
        target = path.resolve()
        raw = self.planned.get(target)
        if raw is None:
            raw = target.read_bytes()
        text = raw.decode("utf-8", "surrogateescape")
        shell = sources[0].shells[0].split()[0]
        script = any(self.where(source).script is not None for source in sources)
        if script and (line := syntax_error(text, shell)) is not None:
            for source in sources:
                self.left[(source.name, str(source.place))] = (
                    f"{source} is left: {shell} does not accept {path} (line {line}); correct that first"
                )
            self.stuck |= {(path, source.name) for source in sources}
            return
        new = self.edited(text, path, sources, shell)
        if new is None or new == text or (script and syntax_error(new, shell) is not None):
            self.stuck |= {(path, source.name) for source in sources}
            return
        self.planned[target] = new.encode("utf-8", "surrogateescape")

    def edited(self, text: str, path: Path, sources: list[Source], shell: str) -> str | None:
        first = self.where(sources[0])
        if first.script is not None:
            cuts = []
            for source in sources:
                place = self.where(source)
                if place.script is not None:
                    cuts.append(Cut(source.name, place, self.note(source), unset=place is not source.place))
            return edit(first.script, cuts, shell)
        if path.suffix == ".json":
            new: str | None = text
            for source in sources:
                new = new and jsontext.without(new, (HELPER,) if source.name == HELPER else ("env", source.name))
            return new
        # From the last line up, so that the numbers stay right.
        for source in sorted(sources, key=lambda source: -source.place.line):
            text = comment_line(text, source.place.line, self.note(source))
        return text

    def note(self, source: Source) -> str:
        moved = source.name in SECRETS and source.text and (source.name != KEY or is_key(source.text))
        where = f"kept in {_short(self.wanted.key_file, self.wanted.home)}" if moved else "taken out"
        return redact(f"farmhand {self.wanted.date}: {source.name} {where}, so that claude runs on the subscription")


def _short(path: Path, home: Path) -> str:
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
