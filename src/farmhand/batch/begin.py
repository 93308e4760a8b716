"""The start of a batch: the journal beside its output is created, resumed or removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farmhand.batch.journal import VERSION, Journal
from farmhand.batch.output import OutputFile
from farmhand.batch.prepare import BatchPlan, prepare
from farmhand.core.errors import UsageError, WireError
from farmhand.core.keysource import read_key


def open_journal(out: Path, inputs: Sequence[str], *, restart: bool = False, ordered: bool = False) -> Journal:
    """Open the journal beside the output `out`, which must not be an unrelated file. Raise UsageError.

    With `restart`, an output of this command and its journal are removed first.
    """
    path = out.with_name(out.name + ".farmhand")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no directory {out.parent}")
    if out.exists() and not out.is_file():
        raise UsageError(f"--out {out} is not a regular file")
    if any(name != "-" and Path(name).exists() and out.exists() and out.samefile(name) for name in inputs):
        raise UsageError(f"--out {out} is the input")
    journal = Journal(path, any_version=restart)
    if restart:
        _forget(out, journal, ordered=ordered)
        journal = Journal(path)
    if journal.fresh and out.exists() and out.stat().st_size:
        journal.remove()
        raise UsageError(f"--out {out} is there already, without its {path.name}", hint="choose another --out")
    return journal


def _forget(out: Path, journal: Journal, *, ordered: bool) -> None:
    """Remove an output and its journal. Raise UsageError if the file is not an output of the journal's batch."""
    try:
        if journal.fresh and out.exists() and out.stat().st_size:
            what = f"--restart: {out} is not known to be an output of farmhand batch, {journal.path.name} is missing"
            raise UsageError(what, hint="move it away, or choose another --out")
        # The contents of another version's tables are unknown here.
        OutputFile(out, journal, ordered=ordered).check(any_batch=journal.version != VERSION)
    except BaseException:
        if journal.fresh:
            journal.remove()
        else:
            journal.close()
        raise
    out.unlink(missing_ok=True)
    journal.remove()


def fill_journal(plan: BatchPlan, journal: Journal, key_source: str) -> str:
    """Fill the journal from the plan's input, or check that they match. Return the key.

    An invalid input is reported even without a key. Raise WireError for a missing key, and UsageError.
    """
    fresh, key, problem = journal.fresh, "", None
    try:
        key = read_key(key_source)
    except WireError as error:
        problem = error
    secret = key.encode()
    prepare(plan, journal, lambda data: bool(secret) and secret in data)
    if problem is not None:
        if fresh:
            journal.remove()
        raise problem
    return key
