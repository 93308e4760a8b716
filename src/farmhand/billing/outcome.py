"""The results of the module farmhand_billing, for both of its states. They contain no values."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..core.keys import redact
from ..core.readable import counted
from .gateway import OwnGateway
from .names import METERED
from .plan import Plan
from .store import Store, hunks
from .verdict import Location
from .wanted import Wanted
from .ways import SESSION

#: Shorter values (a switch's 1) are not secret and occur all over a file.
_SHORTEST = 6
#: Values set on a changed line: fish's `set NAME value`, JSON's `"NAME": value`, NAME=value elsewhere.
_SET = re.compile(r"(\bset[ \t]+(?:-\S+[ \t]+)*\w+[ \t]+)[^;#]*[^;# \t\r\n]")
_MEMBER = re.compile(r"(\"\w+\"[ \t]*:[ \t]*)(\"(?:[^\"\\]|\\.)*\"|[^ ,{}\[\]\"]+)")
_ASSIGNED = re.compile(r"(\b\w+=)(\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^ \t\r\n;\"']+)+")
_NOTE = re.compile(r"[ \t]*# farmhand \d")


def present(wanted: Wanted, store: Store, *, write: bool) -> dict[str, Any]:
    """Remove metered credentials. Raises keyfile.ChangeRefused, OSError, ValueError for a damaged journal."""
    store.entries()
    plan = Plan(wanted, store, write=write)
    plan.carry_out()
    private = wanted.key_file.resolve()
    tighten = private not in plan.files and private.is_file() and bool(private.stat().st_mode & 0o177)
    if write and tighten:
        private.chmod(0o600)
    secrets = {s.text for s in plan.before.sources if s.text and len(s.text) >= _SHORTEST}
    diff = [_shown(path, old or b"", new, secrets) for path, (old, new) in plan.files.items()]
    if tighten:
        diff.append({"before_header": str(private), "after_header": str(private), "before": "", "after": "mode 0600\n"})
    return {
        "changed": bool(plan.files) or tighten,
        "msg": plan.after.line() if write or not plan.files else f"foreseen, not asked: {plan.after.line()}",
        "edits": [line for draft in plan.ways.drafts.values() for line in draft.said()],
        "moved": list(plan.keys.moved),
        "files": [str(path) for path in (*plan.files, *([private] if tighten else []))],
        "backups": plan.run.backups(),
        "left": [*_left(plan), *plan.undecided()],
        "hints": list(plan.hints),
        "billing": plan.after.as_dict(),
        "diff": diff,
    }


def absent(store: Store, *, write: bool) -> dict[str, Any]:
    """Revert the changes. Raises OSError, ValueError for a damaged journal."""
    undo = store.undo()
    if write:
        store.take_back(undo)
        store.remember({})
    return {
        "changed": bool(undo.files) or bool(undo.done),
        "msg": counted(len(undo.files), "file") + " taken back" + (f", {len(undo.left)} left" if undo.left else ""),
        "edits": [],
        "moved": [],
        "files": [str(path) for path in undo.files],
        "backups": [],
        "left": undo.left,
        "hints": [],
        "diff": [_shown(path, old, new or b"") for path, (old, new) in undo.files.items()],
    }


def _left(plan: Plan) -> list[str]:
    """Return what is still wrong after the changes, each with what to do."""
    report, wanted = plan.after, plan.wanted
    said: dict[str, None] = {}
    told: set[str] = set()
    for source in report.reaching:
        reason = plan.reason(source)
        why = ", as workstation_keep says" if source.name in wanted.keep else f": {reason}" if reason else ""
        if why:
            said[f"{source} is left{why}"] = None
            told |= set(source.shells)
    spared = OwnGateway(wanted.home, wanted.environ).spared(wanted.environ)
    for name in METERED:
        if wanted.environ.get(name) and name not in (*wanted.keep, *spared):
            said[f"{name} in {Location(None)} is left: {SESSION}"] = None
    grouped: dict[str, list[str]] = {}
    for verdict in report.verdicts:
        if verdict.unknown:
            at = f" at {verdict.stopped_at}" if verdict.stopped_at else ""
            grouped.setdefault(f"who pays cannot be told ({verdict.reason}{at})", []).append(verdict.kind)
        elif verdict.metered and verdict.kind not in told:
            name = verdict.base_url or verdict.credential
            grouped.setdefault(f"{name} reaches claude, and where it is set was not found", []).append(verdict.kind)
    look = "type claude there and see what /status says"
    said |= {f"{', '.join(kinds)}: {what}; {look}": None for what, kinds in grouped.items()}
    return [*said, *(f"{problem} (left as it is)" for problem in report.problems)]


def _shown(path: Path, old: bytes, new: bytes, secrets: Collection[str] = ()) -> dict[str, str]:
    """Return the changed lines with hidden values, without the lines around them, which may hold other secrets."""
    before, after = [], []
    for line, removed, added in hunks(old, new):
        before += [f"line {line}\n", *(_hidden(text, secrets) for text in removed)]
        after += [f"line {line}\n", *(_hidden(text, secrets) for text in added)]
    headers = {"before_header": str(path), "after_header": str(path)}
    return {**headers, "before": "".join(before), "after": "".join(after)}


def _hidden(line: bytes, secrets: Collection[str]) -> str:
    text = line.decode("utf-8", "replace")
    for secret in secrets:
        text = text.replace(secret, "…")
    if not _NOTE.match(text):
        for pattern in (_SET, _MEMBER, _ASSIGNED):
            text = pattern.sub(r"\1…", text)
    text = redact(text)
    return text if text.endswith("\n") else text + "\n"
