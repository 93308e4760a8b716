"""Changes to the operator's files until an interactive `claude` runs on the subscription alone; each is verified.

There are a few ways to handle a place that sets a name (ways.py). One is tried, and the shells are asked again. If the
name still reaches `claude` from there, the change is reverted byte for byte and the next way is tried. What remains is
reported with what to do. In check mode nothing is written, so nothing can be asked again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path

from ..core.keys import is_key, redact
from . import search
from .draft import Draft
from .keyfile import KeyFile
from .names import HELPER, KEY, METERED, SECRETS
from .store import Files, Run, Store
from .verdict import Report, Source, Verdict
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
    in_vain: bool = False
    late: bool = False

    @property
    def comments(self) -> bool:
        """Return whether the next way only comments lines out."""
        return bool(self.ways) and all(change.shown is not None for _, change in self.ways[0])

    def next(self, kinds: frozenset[str], note: str) -> bool:
        """Apply the next way that keeps its files valid; False if there is none."""
        name = self.source.name
        while self.ways:
            way = self.ways.pop(0)
            made = list(itertools.takewhile(lambda each: each[0].add(each[1], name, note), way))
            if made == way:
                self.active, self.kinds = way, kinds
                return True
            for draft, change in made:
                draft.remove(change, name)
        return False

    def drop(self, why: tuple[str, str] = _IN_VAIN) -> bool:
        """Remove the active way from the drafts. Return whether there was one."""
        if not self.active:
            return False
        for draft, change in self.active:
            draft.remove(change, self.source.name)
        files = ", ".join(dict.fromkeys(str(draft.path) for draft, _ in self.active))
        self.reason = f"what was tried in {files} {why[0]} and was taken back; {why[1]}"
        self.active, self.late, self.in_vain = [], why is _LATE, why is not _LATE
        if self.late:  # on a busy machine the next way would not do better
            self.ways = []
        return True


class Plan:
    """The changes to the files: made and verified, or with `write` False only those of the first round."""

    def __init__(self, wanted: Wanted, store: Store, *, write: bool) -> None:
        self.wanted, self.store, self.write = wanted, store, write
        self.run = Run(store, wanted.key_file)
        self.ways = Ways(wanted)
        self.keys = KeyFile(wanted)
        self.attempts: dict[Spot, _Attempt] = {}
        self.hints: dict[str, None] = {}
        self.memory = store.memory()
        self.told: set[str] = set()
        self.fresh: list[_Attempt] = []

    def carry_out(self) -> None:
        """Make the changes. If that fails, revert them and raise the error.

        Raises ChangeRefused with one line if the operator must decide or correct something first, OSError, and
        ValueError for a damaged journal.
        """
        try:
            self._carry_out()
        except BaseException:
            self.run.take_back()
            raise

    def _carry_out(self) -> None:
        self.before = self.after = self.look()
        for number in range(ROUNDS + 1):
            self.told |= {verdict.kind for verdict in self.after.verdicts if not verdict.unknown}
            if not self.judge(self.after, number):
                break
            self.keys.take()
            if not self.write:
                self.foresee_key_file()
                self.after = self.foreseen()
                break
            self.apply()
            self.after = self.look()
        #: By resolved path: content at the start of this run or None, and now.
        self.files: Files = {
            draft.path: (draft.original, new)
            for draft, new in self.rendered()
            if new is not None and new != draft.original
        }
        if self.write:
            self.store.remember(self.remembered())
        for place in self.after.hidden:
            self.hints[f"an alias or function {place} hides the command: remove it there"] = None
        self.hints |= self.keys.hints
        self.hints |= dict.fromkeys(self.keys.remains(self.files, self.after))

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
            changed |= attempt.drop()
        # Comments first, then upper lines: after these the same file may need nothing else for the same name.
        begun: set[tuple[str, Path]] = set()
        for spot in sorted(kinds, key=lambda spot: (not self.attempts[spot].comments, spot[2] == 0, spot[2])):
            attempt = self.attempts[spot]
            files = {(spot[0], draft.path) for way in attempt.ways[:1] for draft, _ in way}
            # Without a known line, changes elsewhere for the name may be enough.
            same = {name for name, _ in begun} & {spot[0]} if spot[2] == 0 else files & begun
            if number < _ONE_BY_ONE and not attempt.comments and same:
                continue
            if number < ROUNDS and attempt.next(frozenset(kinds[spot]), self.note(attempt.source)):
                self.fresh.append(attempt)
                begun |= files
                changed = True
        return changed

    def begin(self, spot: Spot, source: Source) -> _Attempt:
        """Return a new attempt on a spot. Note the secret that would be lost, and the command that prints it."""
        ways, reason = self.ways.of(source)
        attempt = _Attempt(source, ways, reason, tuple(dict.fromkeys(draft for way in ways for draft, _ in way)))
        known = self.memory.get(self.digest(spot, attempt)) if ways else None
        if known:
            attempt.ways, attempt.reason, attempt.in_vain = [], known, True
        elif ways and source.name in SECRETS and source.text and self.stands_there(source, source.text):
            self.keys.found[source.name].setdefault(source.text.strip(), source.location)  # a file with CRLF adds a CR
        elif ways and source.name in (KEY, HELPER) and source.command:
            self.hint(source.command)
        return attempt

    def take_back_blinding(self, report: Report) -> bool:
        """Revert the newest changes if a kind of shell that answered before them does not answer now.

        Also revert them if a shell lost another variable: later lines of the file need the name.
        """
        fresh, self.fresh = self.fresh, []
        blind = self.blind(report)
        why = _LATE if blind and blind <= report.late else _HARMED
        poorer = {kind for kind, now in report.exports.items() if self.before.exports.get(kind, now) - now}
        dropped = [attempt.drop(why) for attempt in fresh if blind or poorer & attempt.kinds]
        return any(dropped)

    def stands_there(self, source: Source, text: str) -> bool:
        """Return whether the value itself is in the file, so that removing it would lose it.

        Output of a program (a password manager's answer) is never written to a file.
        """
        path = source.location.path
        if path is None:
            return False
        if source.via in ("settings", "file", "universal"):
            return True
        draft = self.ways.drafts.get(path.resolve())
        if draft and draft.script.shell:
            whole = draft.script.assignment(draft.original_line(source.location.line))
            if whole and whole.constant:
                return True
        with contextlib.suppress(OSError):
            return text.encode("utf-8", "surrogateescape") in path.read_bytes()
        return False

    def hint(self, command: str) -> None:
        """Suggest the command that prints the key as the key source."""
        if command.endswith("…"):
            said = f' ({command}): put it into a script, and key_source = "command:SCRIPT" into config.toml'
        else:
            said = f': key_source = "command:{command}" in config.toml uses it'
        self.hints[f"the key came from a command{said}"] = None

    def note(self, source: Source) -> str:
        """Return the comment above a change."""
        text = (source.text or "").strip()
        moved = text in self.keys.found.get(source.name, {}) and (source.name != KEY or is_key(text))
        where = f"kept in {self.wanted.short(self.wanted.key_file)}" if moved else "taken out"
        return redact(f"farmhand {self.wanted.date}: {source.name} {where}, so that claude runs on the subscription")

    # Files

    def rendered(self) -> list[tuple[Draft | KeyFile, bytes | None]]:
        """Return the files that may have to change, each with its planned content; None for no change."""
        drafts: list[Draft | KeyFile] = [self.keys, *self.ways.drafts.values()]
        return [(draft, draft.render()) for draft in drafts]

    def apply(self) -> None:
        """Write the changes that are not yet written."""
        due = [(draft, new) for draft, new in self.rendered() if new is not None and new != draft.known]
        self.run.apply({draft.path: (draft.original, new) for draft, new in due})
        for draft, new in due:
            draft.written(new)

    # Messages

    def foresee_key_file(self) -> None:
        """Plan for the other names that a statement reading the key file would set, once they are in it."""
        for source in self.after.reaching:
            if source.location.path is None or source.location.path.resolve() != self.keys.path:
                continue
            for name, values in self.keys.found.items():
                other = dataclasses.replace(source, name=name, text=next(iter(values), None))
                spot = self.ways.spot(other)
                if values and self.ways.goes(name) and spot not in self.attempts:
                    attempt = self.attempts[spot] = self.begin(spot, other)
                    attempt.next(frozenset(source.shells), self.note(other))

    def foreseen(self) -> Report:
        """Return the report if every change helps, as check mode cannot ask."""
        after, sources = self.after, []
        for source in after.sources:
            attempt = self.attempts.get(self.ways.spot(source))
            sources.append(dataclasses.replace(source, shells=[]) if attempt and attempt.active else source)
        still = {kind for source in sources for kind in source.shells if source.name in (*METERED, HELPER)}
        credential, billed = ("login", "subscription") if after.logged_in else ("none", "none")
        verdicts = [
            Verdict(v.shell, v.mode, credential, billed, how="foreseen") if v.metered and v.kind not in still else v
            for v in after.verdicts
        ]
        return dataclasses.replace(after, sources=sources, verdicts=verdicts)

    def reason(self, source: Source) -> str | None:
        """Return why `source` remains; None if it does not."""
        attempt = self.attempts.get(self.ways.spot(source))
        return attempt.reason if attempt and not attempt.active else None

    def undecided(self) -> list[str]:
        """Return what remains because the result of a change was not seen in time, if the report does not show it."""
        said = {self.ways.spot(source) for source in self.after.reaching}
        late = [attempt for spot, attempt in self.attempts.items() if attempt.late and spot not in said]
        return [f"{attempt.source} is left: {attempt.reason}" for attempt in late]

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
