"""Changing the operator's files until an interactive `claude` runs on the subscription alone; each change is proved.

Each place that sets a name has a few ways to deal with it (ways.py). One is tried, and the shells are asked again. A
way after which the name still reaches `claude` from there is taken back, byte for byte, and the next one is tried. What
is left then is reported with what to do. In check mode nothing is written, so nothing can be asked again.
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

#: Most times that the files are changed and the shells asked again.
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
    """What was (without writing: would be) done. `files`: by resolved path, (content before or None, content after).

    `edits`: each name that was commented out or unset, with file and line; `left`: what stays, with what to do.
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
    """Do it; without `write`, say what would be done first.

    Raises Refused with one line where the operator has to decide or to correct something first, OSError, and ValueError
    for a broken journal: then what this run has changed is taken back.
    """
    run = Run(store, wanted.key_file)
    try:
        return _Planner(wanted, store, run, write=write).plan()
    except BaseException:
        run.take_back()
        raise


@dataclass
class _Attempt:
    """What is being done about one spot: the way in force, the kinds of shell it was for, the ways not tried yet.

    `in_vain`: a way did not help, which is remembered. `late`: whether it helped could not be seen in time.
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
        """Whether what comes next is only to comment out."""
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
        """What the shells say. If one that could be asked before is late now, all are asked once more."""
        w = self.wanted
        for _ in range(2):
            report = search.find(w.home, w.new_session, w.cwd, root=w.root, ask=w.ask, ask_shell=w.ask_shell)
            if not self.blind(report) & report.late:
                break
        return report

    def blind(self, report: Report) -> set[str]:
        """The kinds of shell that could be asked before, and now cannot."""
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

    # What is to be done

    def judge(self, report: Report, number: int) -> bool:
        """Take back what did not help and set what is to be tried next; whether the files are to be written again.

        `number` counts the rounds; in the last one nothing new is tried.
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
                attempt.active = []  # it has helped in some kinds of shell, and stays for them
            changed |= self.drop(attempt)
        # Comments first, then the upper lines: with these made, the same file may need nothing else for the same name.
        begun: set[tuple[str, Path]] = set()
        for spot in sorted(kinds, key=lambda spot: (not self.attempts[spot].comments, spot[2] == 0, spot[2])):
            attempt = self.attempts[spot]
            files = {(spot[0], draft.path) for way in attempt.ways[:1] for draft, _ in way}
            # Where no line is known, what is done elsewhere for the name may be all that it needs.
            same = {name for name, _ in begun} & {spot[0]} if spot[2] == 0 else files & begun
            if number < _ONE_BY_ONE and not attempt.comments and same:
                continue
            if number < ROUNDS and self.next(attempt, frozenset(kinds[spot])):
                begun |= files
                changed = True
        return changed

    def begin(self, spot: Spot, source: Source) -> _Attempt:
        """Find the ways for a spot that has turned up."""
        ways, reason = self.ways.of(source)
        attempt = _Attempt(source, ways, reason, tuple(dict.fromkeys(draft for way in ways for draft, _ in way)))
        known = self.memory.get(self.digest(spot, attempt)) if ways else None
        if known:
            attempt.ways, attempt.reason, attempt.in_vain = [], known, True
        elif ways and source.name in SECRETS and source.text and self.stands_there(source, source.text):
            self.secrets[source.name].setdefault(
                source.text.strip(), source.location
            )  # a file with CRLF has a CR there
        elif ways and source.name in (KEY, HELPER) and source.command:
            self.hint(source)
        return attempt

    def next(self, attempt: _Attempt, kinds: frozenset[str]) -> bool:
        """Set the next way that leaves its files whole; False if there is none."""
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
        """Take the attempt's way out of the drafts again; whether there was one."""
        if not attempt.active:
            return False
        for draft, change in attempt.active:
            draft.remove(change, attempt.source.name)
        files = ", ".join(dict.fromkeys(str(draft.path) for draft, _ in attempt.active))
        attempt.reason = f"what was tried in {files} {why[0]} and was taken back; {why[1]}"
        attempt.active, attempt.late, attempt.in_vain = [], why is _LATE, why is not _LATE
        if attempt.late:  # on a busy machine the next way would be no better
            attempt.ways = []
        return True

    def take_back_blinding(self, report: Report) -> bool:
        """Take back the newest changes if a kind of shell that could be asked before them cannot be asked now.

        So too where a shell has lost another variable: what follows in the file needs the name.
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
        """Whether the value itself stands in the file, so that taking it out would lose it.

        What a program prints (a password manager's answer) is never written into a file.
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
        """A command that gives the key can be the key's source."""
        if source.command.endswith("…"):
            advice = 'put it into a script, and key_source = "command:SCRIPT" into config.toml'
            self.hints[f"the key came from a command ({source.command}): {advice}"] = None
        else:
            advice = f'key_source = "command:{source.command}" in config.toml uses it'
            self.hints[f"the key came from a command: {advice}"] = None

    def note(self, source: Source) -> str:
        """What stands above a change."""
        text = (source.text or "").strip()
        moved = text in self.secrets.get(source.name, {}) and (source.name != KEY or is_key(text))
        where = f"kept in {self.wanted.short(self.wanted.key_file)}" if moved else "taken out"
        return redact(f"farmhand {self.wanted.date}: {source.name} {where}, so that claude runs on the subscription")

    # The files

    def files(self) -> dict[Path, tuple[bytes | None, bytes]]:
        """The files that are not as they were when this run began."""
        found: dict[Path, tuple[bytes | None, bytes]] = {}
        if self.keys.content is not None and self.keys.content != self.keys.original:
            found[self.keys.path] = (self.keys.original, self.keys.content)
        for draft in self.ways.drafts.values():
            content = draft.render()
            if content is not None and content != draft.original:
                found[draft.path] = (draft.original, content)
        return found

    def apply(self) -> None:
        """Write what is not written yet."""
        due: dict[Path, tuple[bytes | None, bytes]] = {}
        if self.keys.content is not None and self.keys.content != self.keys.written:
            due[self.keys.path] = (self.keys.original, self.keys.content)
        drafts = [(draft, draft.render()) for draft in self.ways.drafts.values()]
        changed = [(draft, content) for draft, content in drafts if content is not None and content != draft.known]
        self.run.apply({**due, **{draft.path: (draft.original, content) for draft, content in changed}})
        self.keys.written = self.keys.content
        for draft, content in changed:
            draft.written(content)

    # What is said

    def foresee_key_file(self, report: Report) -> None:
        """Plan for what a statement that reads the key file would bring in besides, once it is there."""
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
        """Why `source` stays; None if it does not."""
        attempt = self.attempts.get(self.ways.spot(source))
        return attempt.reason if attempt and not attempt.active else None

    def undecided(self, report: Report) -> list[str]:
        """What is left because nobody could see in time whether a change helped, and `report` does not show."""
        said = {self.ways.spot(source) for source in report.reaching}
        late = [attempt for spot, attempt in self.attempts.items() if attempt.late and spot not in said]
        return [f"{attempt.source} is left: {attempt.reason}" for attempt in late]

    def done(self, source: Source) -> bool:
        """Whether something is (or would be) done about `source`."""
        attempt = self.attempts.get(self.ways.spot(source))
        return attempt is not None and bool(attempt.active)

    def digest(self, spot: Spot, attempt: _Attempt) -> str:
        """Tells a spot and the files that would be changed for it, as they are now, from all others."""
        name, path, line, via = spot
        draft = self.ways.drafts.get(path) if path else None
        text = draft.script.lines[line - 1] if draft and 0 < line <= len(draft.script.lines) else ""
        parts = [name, str(path), via, text, *(f"{draft.path}\0{draft.known!r}" for draft in attempt.drafts)]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

    def remembered(self) -> dict[str, str]:
        """What was tried in vain, so that the next run does not write and take back the same again."""
        idle = {spot: attempt for spot, attempt in self.attempts.items() if attempt.in_vain and not attempt.active}
        return {self.digest(spot, attempt): attempt.reason for spot, attempt in idle.items()}
