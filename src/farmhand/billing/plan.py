"""Changes to the operator's files until an interactive `claude` runs on the subscription alone; each is verified.

There are a few ways to handle a place that sets a name (ways.py). One is tried, and the shells are asked again. If the
name still reaches `claude` from there, the change is reverted byte for byte and the next way is tried. What remains is
reported with what to do. In check mode nothing is written, so nothing can be asked again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from ..core.keys import is_key, redact
from . import remaining, search
from .draft import Draft
from .keychoice import KeyFile
from .names import HELPER, KEY, SECRETS
from .store import Run, Store
from .verdict import Location, Report, Source
from .wanted import Wanted
from .ways import Spot, Way, Ways

#: Maximum number of rounds in which the files are changed and the shells asked again.
ROUNDS = 8
_ONE_BY_ONE = 4
_IN_VAIN = "did not keep it from claude", "take it out by hand"
_HARMED = "left a shell that lost another variable or could not be asked any more", "take it out by hand"
_LATE = (
    "left a shell that was not ready in time",
    "run this again when the machine is less busy, or take it out by hand",
)


@dataclass
class Plan:
    """The changes made (or only planned). `files`: by resolved path, (content before or None, content after).

    `edits`: each name that was commented out or unset, with file and line. `left`: what remains, with what to do.
    """

    before: Report
    after: Report
    files: dict[Path, tuple[bytes | None, bytes]]
    edits: list[str]
    moved: list[str]
    left: list[str]
    hints: list[str]
    backups: list[Path]


def carry_out(wanted: Wanted, store: Store, *, write: bool) -> Plan:
    """Make the changes. Without `write`, return those of the first round.

    Raises ChangeRefused with one line if the operator must decide or correct something first, OSError, and ValueError
    for a damaged journal. Then the changes of this run are reverted.
    """
    run = Run(store, wanted.key_file)
    try:
        return _Planner(wanted, store, run, write=write).plan()
    except BaseException:
        run.take_back()
        raise


@dataclass
class _Attempt:
    """The work on one spot: its active way, the kinds of shell it was for, and the ways not tried yet.

    `in_vain`: a way did not help, which is remembered. `late`: the result was not seen in time.
    """

    source: Source
    ways: list[Way]
    reason: str
    drafts: tuple[Draft, ...]
    kinds: frozenset[str] = frozenset()
    active: Way = field(default_factory=list)
    fresh: bool = False
    in_vain: bool = False
    late: bool = False

    @property
    def comments(self) -> bool:
        """Return whether the next way only comments lines out."""
        return bool(self.ways) and all(change.shown is not None for _, change in self.ways[0])


class _Planner:
    def __init__(self, wanted: Wanted, store: Store, run: Run, *, write: bool) -> None:
        self.wanted, self.store, self.run, self.write = wanted, store, run, write
        self.ways = Ways(wanted)
        self.keys = KeyFile(wanted)
        self.attempts: dict[Spot, _Attempt] = {}
        self.secrets: dict[str, dict[str, Location]] = {name: {} for name in SECRETS}
        self.hints: dict[str, None] = {}
        self.memory = store.memory()
        self.told: set[str] = set()
        self.exports: dict[str, frozenset[str]] = {}

    def look(self) -> Report:
        """Ask the shells. Ask them all once more if one that answered before is now late."""
        w = self.wanted
        for _ in range(2):
            report = search.find(w.home, w.new_session, w.cwd, root=w.root, ask=w.ask, ask_shell=w.ask_shell)
            if not self.blind(report) & report.late:
                break
        return report

    def blind(self, report: Report) -> set[str]:
        """Return the kinds of shell that answered before but not now."""
        return self.told & {verdict.kind for verdict in report.unknown}

    def plan(self) -> Plan:
        before = after = self.look()
        self.exports = before.exports
        for number in range(ROUNDS + 1):
            self.told |= {verdict.kind for verdict in after.verdicts if not verdict.unknown}
            if not self.judge(after, number):
                break
            self.keys.take(self.secrets)
            if not self.write:
                self.foresee_key_file(after)
                after = remaining.foreseen(after, self.done)
                break
            self.apply()
            after = self.look()
        files = self.files()
        if self.write:
            self.store.remember(self.remembered())
        for place in after.hidden:
            self.hints[f"an alias or function {place} hides the command: remove it there"] = None
        hints = [*self.hints, *self.keys.hints, *self.keys.remains(files, self.secrets, after)]
        edits = [line for draft in self.ways.drafts.values() for line in draft.said()]
        moved = list(self.keys.moved)
        return Plan(
            before,
            after,
            files,
            edits,
            moved,
            [*remaining.left(after, self.wanted, self.reason), *self.undecided(after)],
            hints,
            self.run.backups(),
        )

    # Choice of changes

    def judge(self, report: Report, number: int) -> bool:
        """Revert what did not help and choose the next changes. Return whether the files must be written again.

        `number` is the round; in the last one nothing new is tried.
        """
        changed = self.take_back_blinding(report)
        kinds: dict[Spot, set[str]] = {}
        for source in report.reaching:
            if self.ways.goes(source.name):
                spot = self.ways.spot(source)
                kinds.setdefault(spot, set()).update(source.shells)
                if spot not in self.attempts:
                    self.attempts[spot] = self.begin(spot, source)
        for spot, now in kinds.items():
            attempt = self.attempts[spot]
            if attempt.active and now < attempt.kinds:
                attempt.active = []  # it helped in some kinds of shell and stays for them
            changed |= self.drop(attempt)
        # Comments first, then upper lines: after these the same file may need nothing else for the same name.
        begun: set[tuple[str, Path]] = set()
        for spot in sorted(kinds, key=lambda spot: (not self.attempts[spot].comments, spot[2] == 0, spot[2])):
            attempt = self.attempts[spot]
            files = {(spot[0], draft.path) for way in attempt.ways[:1] for draft, _ in way}
            # Without a known line, changes elsewhere for the name may be enough.
            same = {name for name, _ in begun} & {spot[0]} if spot[2] == 0 else files & begun
            if number < _ONE_BY_ONE and not attempt.comments and same:
                continue
            if number < ROUNDS and self.next(attempt, frozenset(kinds[spot])):
                begun |= files
                changed = True
        return changed

    def begin(self, spot: Spot, source: Source) -> _Attempt:
        ways, reason = self.ways.of(source)
        attempt = _Attempt(source, ways, reason, tuple(dict.fromkeys(draft for way in ways for draft, _ in way)))
        known = self.memory.get(self.digest(spot, attempt)) if ways else None
        if known:
            attempt.ways, attempt.reason, attempt.in_vain = [], known, True
        elif ways and source.name in SECRETS and source.text and self.stands_there(source, source.text):
            self.secrets[source.name].setdefault(source.text.strip(), source.location)  # a file with CRLF adds a CR
        elif ways and source.name in (KEY, HELPER) and source.command:
            self.hint(source)
        return attempt

    def next(self, attempt: _Attempt, kinds: frozenset[str]) -> bool:
        """Apply the next way that keeps its files valid; False if there is none."""
        name, note = attempt.source.name, self.note(attempt.source)
        while attempt.ways:
            way = attempt.ways.pop(0)
            made: Way = []
            for draft, change in way:
                if not draft.untouched or not draft.add(change, name, note):
                    break
                made.append((draft, change))
            if len(made) == len(way):
                attempt.active, attempt.kinds, attempt.fresh = way, kinds, True
                return True
            for draft, change in made:
                draft.remove(change, name)
        return False

    def drop(self, attempt: _Attempt, why: tuple[str, str] = _IN_VAIN) -> bool:
        """Remove the attempt's way from the drafts. Return whether there was one."""
        if not attempt.active:
            return False
        for draft, change in attempt.active:
            draft.remove(change, attempt.source.name)
        files = ", ".join(dict.fromkeys(str(draft.path) for draft, _ in attempt.active))
        attempt.reason = f"what was tried in {files} {why[0]} and was taken back; {why[1]}"
        attempt.active, attempt.late, attempt.in_vain = [], why is _LATE, why is not _LATE
        if attempt.late:  # on a busy machine the next way would not do better
            attempt.ways = []
        return True

    def take_back_blinding(self, report: Report) -> bool:
        """Revert the newest changes if a kind of shell that answered before them does not answer now.

        Also revert them if a shell lost another variable: later lines of the file need the name.
        """
        fresh = [attempt for attempt in self.attempts.values() if attempt.fresh]
        for attempt in fresh:
            attempt.fresh = False
        blind = self.blind(report)
        why = _LATE if blind and blind <= report.late else _HARMED
        poorer = {kind for kind, now in report.exports.items() if self.exports.get(kind, now) - now}
        dropped = [self.drop(attempt, why) for attempt in fresh if blind or poorer & attempt.kinds]
        return any(dropped)

    def stands_there(self, source: Source, text: str) -> bool:
        """Return whether the value itself is in the file, so that removing it would lose it.

        Output of a program (a password manager's answer) is never written to a file.
        """
        path, line = source.location.path, source.location.line
        if path is None:
            return False
        draft = self.ways.drafts.get(path.resolve())
        whole = draft.script.assignment(draft.original_line(line)) if draft and draft.script.shell else None
        if source.via in ("settings", "file", "universal") or (whole and whole[2].constant):
            return True
        try:
            return text.encode("utf-8", "surrogateescape") in path.read_bytes()
        except OSError:
            return False

    def hint(self, source: Source) -> None:
        """Suggest the command that prints the key as the key source."""
        if source.command.endswith("…"):
            advice = 'put it into a script, and key_source = "command:SCRIPT" into config.toml'
            self.hints[f"the key came from a command ({source.command}): {advice}"] = None
        else:
            advice = f'key_source = "command:{source.command}" in config.toml uses it'
            self.hints[f"the key came from a command: {advice}"] = None

    def note(self, source: Source) -> str:
        """Return the comment above a change."""
        text = (source.text or "").strip()
        moved = text in self.secrets.get(source.name, {}) and (source.name != KEY or is_key(text))
        where = f"kept in {self.wanted.short(self.wanted.key_file)}" if moved else "taken out"
        return redact(f"farmhand {self.wanted.date}: {source.name} {where}, so that claude runs on the subscription")

    # Files

    def files(self) -> dict[Path, tuple[bytes | None, bytes]]:
        """Return the files that differ from the start of this run."""
        found: dict[Path, tuple[bytes | None, bytes]] = {}
        if self.keys.content is not None and self.keys.content != self.keys.original:
            found[self.keys.path] = (self.keys.original, self.keys.content)
        for draft in self.ways.drafts.values():
            content = draft.render()
            if content is not None and content != draft.original:
                found[draft.path] = (draft.original, content)
        return found

    def apply(self) -> None:
        """Write the changes that are not yet written."""
        due: dict[Path, tuple[bytes | None, bytes]] = {}
        if self.keys.content is not None and self.keys.content != self.keys.written:
            due[self.keys.path] = (self.keys.original, self.keys.content)
        drafts = [(draft, draft.render()) for draft in self.ways.drafts.values()]
        changed = [(draft, content) for draft, content in drafts if content is not None and content != draft.known]
        self.run.apply({**due, **{draft.path: (draft.original, content) for draft, content in changed}})
        self.keys.written = self.keys.content
        for draft, content in changed:
            draft.written(content)

    # Messages

    def foresee_key_file(self, report: Report) -> None:
        """Plan for the other names that a statement reading the key file would set, once they are in it."""
        for source in report.reaching:
            if source.location.path is None or source.location.path.resolve() != self.keys.path:
                continue
            for name, values in self.secrets.items():
                other = dataclasses.replace(source, name=name, text=next(iter(values), None))
                spot = self.ways.spot(other)
                if values and self.ways.goes(name) and spot not in self.attempts:
                    self.attempts[spot] = self.begin(spot, other)
                    self.next(self.attempts[spot], frozenset(source.shells))

    def reason(self, source: Source) -> str | None:
        """Return why `source` remains; None if it does not."""
        attempt = self.attempts.get(self.ways.spot(source))
        return attempt.reason if attempt and not attempt.active else None

    def undecided(self, report: Report) -> list[str]:
        """Return what remains because the result of a change was not seen in time, if `report` does not show it."""
        said = {self.ways.spot(source) for source in report.reaching}
        late = [attempt for spot, attempt in self.attempts.items() if attempt.late and spot not in said]
        return [f"{attempt.source} is left: {attempt.reason}" for attempt in late]

    def done(self, source: Source) -> bool:
        """Return whether `source` is (or would be) handled."""
        attempt = self.attempts.get(self.ways.spot(source))
        return attempt is not None and bool(attempt.active)

    def digest(self, spot: Spot, attempt: _Attempt) -> str:
        """Return a digest of a spot and the current content of the files that would be changed for it."""
        name, path, line, via = spot
        draft = self.ways.drafts.get(path) if path else None
        text = draft.script.lines[line - 1] if draft and 0 < line <= len(draft.script.lines) else ""
        parts = [name, str(path), via, text, *(f"{draft.path}\0{draft.known!r}" for draft in attempt.drafts)]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

    def remembered(self) -> dict[str, str]:
        """Return what was tried in vain, so that the next run does not repeat it."""
        idle = {spot: attempt for spot, attempt in self.attempts.items() if attempt.in_vain and not attempt.active}
        return {self.digest(spot, attempt): attempt.reason for spot, attempt in idle.items()}
