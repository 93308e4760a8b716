"""The start of a batch: its journal, beside the output, is made from the input as a whole, resumed, or removed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from farmhand.batch.inputs import InputRecord, InputSource
from farmhand.batch.journal import Journal
from farmhand.batch.names import id_of, name_after
from farmhand.batch.output import check_output
from farmhand.batch.template import BadRecord
from farmhand.core import rules
from farmhand.core.errors import UsageError, WireError
from farmhand.core.keys import Credential
from farmhand.core.readable import counted
from farmhand.core.settings import Settings
from farmhand.core.task import TASK_ID, Task
from farmhand.core.typed import ready
from farmhand.places.hosts import credential

#: The most errors of an input that are shown.
SHOWN = 20
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class InvalidInput(UsageError):
    """Lines of the input are not valid tasks. `lines` are the errors to show, one line each."""

    code = "invalid_input"

    def __init__(self, problems: list[str], total: int) -> None:
        super().__init__(f"nothing was sent: {counted(total, 'error')} in the input")
        more = total - len(problems)
        self.lines = [*problems, *([f"and {more} more"] if more else [])]


class BatchPlan(NamedTuple):
    """How tasks are made from an input's lines. `options` must stay the same for the batch to be resumed.

    A batch without a name is named after the file `called`, and a few random letters: names and ids are used once.
    """

    source: InputSource
    name: str
    options: dict[str, Any]
    called: str = ""


def open_journal(out: Path, inputs: Sequence[str], *, restart: bool = False) -> Journal:
    """Open the journal beside the output `out`, which must not be an unrelated file. Raise UsageError.

    With `restart`, an output of this command and its journal are removed first.
    """
    if out.name in ("", "-"):
        raise UsageError(
            f"--out {str(out)!r} is not the name of a file", hint="it must be one: its journal is beside it"
        )
    path = out.with_name(out.name + ".farmhand")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no directory {out.parent}")
    if out.exists() and not out.is_file():
        raise UsageError(f"--out {out} is not a regular file")
    if any(name != "-" and Path(name).exists() and out.exists() and out.samefile(name) for name in inputs):
        raise UsageError(f"--out {out} is the input")
    journal = Journal(path, any_version=restart)
    try:
        if journal.fresh and out.exists() and out.stat().st_size:
            if restart:
                what = f"--restart: {out} is not known to be an output of farmhand batch, {path.name} is missing"
                raise UsageError(what, hint="move it away, or choose another --out")
            raise UsageError(f"--out {out} is there already, without its {path.name}", hint="choose another --out")
        if restart:
            # The contents of another version's tables are unknown here.
            check_output(out, None if journal.other_version else journal)
    except BaseException:
        journal.abandon()
        raise
    if restart:
        out.unlink(missing_ok=True)
        journal.remove()
        journal = Journal(path)
    return journal


def fill_journal(plan: BatchPlan, journal: Journal, conf: Settings, *, needs_key: bool = True) -> Credential:
    """Fill a fresh journal from the input, checked as a whole, or check that an old one has the same. Return the key.

    It may be the keys of pots.

    Unless `needs_key`, a missing key is "": the place has one. An invalid input is reported even without a key. Raise
    WireError for a missing key, InvalidInput and UsageError; a fresh journal is then removed.
    """
    key: Credential = ""
    problem = None
    try:
        key = credential(conf, every=True)
    except WireError as error:
        problem = error if needs_key else None
    try:
        with journal.transaction():
            if journal.fresh:
                _fill(plan, journal, key, {pot.name for pot in conf.pots} or {""})
            else:
                _check_same(plan, journal)
            journal.count()
        if problem is not None:
            raise problem
    except BaseException:
        journal.abandon()
        raise
    return key


def _check_same(plan: BatchPlan, journal: Journal) -> None:
    hint = "give the same command again, or --restart to begin anew (what was done is then forgotten)"
    if plan.name and plan.name != journal.about("batch"):
        raise UsageError(f"{journal.path} is of the batch {journal.about('batch')!r}, not {plan.name!r}", hint=hint)
    before, now = (_flags(json.loads(text)) for text in (journal.about("options"), _ENCODER.encode(plan.options)))
    changed = sorted(flag for flag in before | now if before.get(flag) != now.get(flag))
    if changed:
        what = "option" if len(changed) == 1 else "options"
        raise UsageError(f"the batch was begun with other values of the {what} {', '.join(changed)}", hint=hint)
    if plan.source.fingerprint() != journal.about("input"):
        raise UsageError(f"the input is not the one that {journal.path} was begun with", hint=hint)


def _flags(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a batch by the flags that set them."""
    values = {**options, **options.get("defaults", {})}
    values.pop("defaults", None)
    names = {"form": "format", "labels": "label", "timeout_s": "timeout"}
    return {f"--{names.get(name, name).replace('_', '-')}": value for name, value in values.items()}


def _fill(plan: BatchPlan, journal: Journal, key: Credential, pots: set[str]) -> None:
    secrets = [each.encode() for each in ([key] if isinstance(key, str) else [pot["key"] for pot in key]) if each]
    batch = plan.name or name_after(plan.called)
    journal.begin_new({"batch": batch, "options": msgspec.json.encode(plan.options).decode()})
    problems: list[str] = []
    wrong = lines = 0
    for record in plan.source.records():
        lines += 1
        problem = record.problem
        if record.fields is not None:
            try:
                _add(journal, batch, record, secrets, pots)
            except BadRecord as error:
                problem = str(error)
        if problem:
            wrong += 1
            if len(problems) < SHOWN:
                problems.append(f"{plan.source.where(record.n)} {problem}")
    if not lines:
        raise UsageError("the input has no tasks", code="invalid_input")
    if wrong:
        raise InvalidInput(problems, wrong)
    journal.note("input", plan.source.fingerprint())
    journal.note("columns", json.dumps(plan.source.kept))


def _add(journal: Journal, batch: str, record: InputRecord, secrets: list[bytes], pots: set[str]) -> None:
    """Add the task of one line to the journal, with the columns to keep. Raise BadRecord."""
    n, fields = record.n, record.fields or {}
    columns = None if record.columns is None else _ENCODER.encode(record.columns)
    given = _given_id(fields.get("id"))
    if "batch" in fields:
        raise BadRecord("has a batch of its own (leave batch out: it is this one's)")
    made = _task({**fields, "id": given or "x"})
    if made.pot not in pots:
        raise BadRecord(f"names the pot {made.pot!r:.40}, which config.toml does not have at this place")
    task = _ENCODER.encode(made)
    if any(secret in task or (columns is not None and secret in columns) for secret in secrets):
        raise BadRecord("holds the API key itself (take it out: it would go to the model)")
    # The id is the first field; a lease replaces it by another id and the batch.
    body = task[len(f'{{"id":"{given or "x"}",') :]
    taken = journal.add(n, given or id_of(batch, n, body), body, columns)
    if taken is not None:
        raise BadRecord(f"has the id {given!r}, as line {taken} has")


def _given_id(given: Any) -> str | None:
    """Return the line's own id, or None; an integer is converted to its digits. Raise BadRecord."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise BadRecord(f"has the id {json.dumps(given):.80}, which is neither a text nor a whole number")
    if not TASK_ID.fullmatch(str(given)):
        raise BadRecord(f"has the id {given!r:.80}, which does not match {TASK_ID.pattern}")
    return str(given)


def _task(fields: dict[str, Any]) -> Task:
    try:
        task = msgspec.convert(fields, ready(Task))
    except msgspec.ValidationError as error:
        raise BadRecord(f"is no task: {error}") from None
    if (broken := rules.check(task)) is not None:
        hint = f" ({broken.hint})" if broken.hint else ""
        raise BadRecord(f"is no task: {broken.message}{hint}")
    return task
