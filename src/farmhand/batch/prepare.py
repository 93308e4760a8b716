"""The preparation of a batch: a new journal is filled from the checked input, an existing one is compared with it."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from farmhand.batch.inputs import BadRecord, InputSource
from farmhand.batch.journal import Journal, suffixed
from farmhand.core import rules
from farmhand.core.errors import UsageError
from farmhand.core.task import TASK_ID, Task

#: The most errors of an input that are shown.
SHOWN = 20
_ENCODER = msgspec.json.Encoder(decimal_format="number")
Secret = Callable[[bytes], bool]


class InvalidInput(UsageError):
    """Lines of the input are not valid tasks. `lines` are the errors to show, one line each."""

    code = "invalid_input"

    def __init__(self, problems: list[str], more: int) -> None:
        total = len(problems) + more
        lines = [*problems, *([f"and {more} more"] if more else [])]
        super().__init__(f"nothing was sent: {total} error{'s' if total > 1 else ''} in the input")
        self.lines = lines


@dataclass
class BatchPlan:
    """How tasks are made from an input's lines. `options` must stay the same for the batch to be resumed."""

    source: InputSource
    name: str
    options: dict[str, Any] = field(default_factory=dict)


def task_of(fields: dict[str, Any]) -> Task:
    """Return the task of one line. Raise BadRecord."""
    try:
        task = msgspec.convert(fields, Task)
    except msgspec.ValidationError as error:
        raise BadRecord(str(error)) from None
    broken = rules.check(task)
    if broken is not None:
        raise BadRecord(f"{broken.message} ({broken.hint})" if broken.hint else broken.message)
    return task


def id_of(batch: str, n: int, body: bytes) -> str:
    """Return the id for a line without one; it identifies the content of its task."""
    return suffixed(batch, f"-{n}-{hashlib.sha256(body).hexdigest()[:8]}")


def given_id(given: Any) -> str | None:
    """Return the line's own id, or None; an integer is converted to its digits. Raise BadRecord."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise BadRecord(f"has the id {json.dumps(given):.80}, which is neither a text nor a whole number")
    if not TASK_ID.fullmatch(str(given)):
        raise BadRecord(f"has the id {given!r:.80}, which does not match {TASK_ID.pattern}")
    return str(given)


def new_name() -> str:
    """Return a new name for a batch."""
    return "b" + secrets.token_hex(6)


def prepare(plan: BatchPlan, journal: Journal, is_secret: Secret) -> None:
    """Fill a fresh journal from the input, checked as a whole, or check that an old one has the same input.

    Raise InvalidInput or UsageError; a fresh journal is then removed.
    """
    if not journal.fresh:
        _same(plan, journal)
        return
    try:
        with journal.transaction():
            journal.begin_new({"batch": plan.name or new_name(), "options": _options(plan)})
            _fill(plan, journal, is_secret)
            journal.note("input", plan.source.fingerprint())
    except BaseException:
        journal.remove()
        raise


def _options(plan: BatchPlan) -> str:
    return msgspec.json.encode(plan.options, order="deterministic").decode()


def _same(plan: BatchPlan, journal: Journal) -> None:
    hint = "give the same command again, or --restart to begin anew (what was done is then forgotten)"
    if plan.name and plan.name != journal.about("batch"):
        raise UsageError(f"{journal.path} is of the batch {journal.about('batch')!r}, not {plan.name!r}", hint=hint)
    before, now = msgspec.json.decode(journal.about("options")), msgspec.json.decode(_options(plan))
    changed = sorted(name for name in before | now if before.get(name) != now.get(name))
    if changed:
        raise UsageError(f"the batch was begun with another {', '.join(changed)}", hint=hint)
    if plan.source.fingerprint() != journal.about("input"):
        raise UsageError(f"the input is not the one that {journal.path} was begun with", hint=hint)


def _fill(plan: BatchPlan, journal: Journal, is_secret: Secret) -> None:
    batch = journal.about("batch")
    problems: list[str] = []
    wrong = lines = 0
    for record in plan.source.records():
        lines += 1
        problem = record.problem
        if record.fields is not None:
            problem = _line(journal, is_secret, batch, record.n, record.fields)
        if problem:
            wrong += 1
            if len(problems) < SHOWN:
                problems.append(f"line {record.n} {problem}")
    if not lines:
        raise UsageError("the input has no tasks", code="invalid_input")
    if wrong:
        raise InvalidInput(problems, wrong - len(problems))


def _line(journal: Journal, is_secret: Secret, batch: str, n: int, fields: dict[str, Any]) -> str:
    """Add one line; return what is wrong with it, or ""."""
    try:
        given = given_id(fields.get("id"))
    except BadRecord as error:
        return str(error)
    if "batch" in fields:
        return "has a batch of its own (leave batch out: it is this one's)"
    try:
        task = _ENCODER.encode(task_of({**fields, "id": given or "x"}))
    except BadRecord as error:
        return f"is no task: {error}"
    if is_secret(task):
        return "holds the API key itself (take it out: it would go to the model)"
    # The id is the first field; a lease replaces it by another id and the batch.
    body = task[len(f'{{"id":"{given or "x"}",') :]
    taken = journal.add(n, given or id_of(batch, n, body), body)
    return "" if taken is None else f"has the id {given!r}, as line {taken} has"
