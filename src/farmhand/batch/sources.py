"""The source of a batch's tasks, chosen by the form of its input."""

from __future__ import annotations

import codecs
import glob
import io
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from farmhand.batch.inputs import Csv, DoubledKey, Files, InputSource, JsonLines
from farmhand.batch.journal import Journal
from farmhand.batch.template import Template, read_template
from farmhand.core.decoding import broken, check_stream, is_utf_16
from farmhand.core.errors import UsageError

if TYPE_CHECKING:
    from farmhand.batch.request_files import RequestLines

_MAX_HEADER = 1 << 20
#: The forms of other people's batch files, and how far their beginning is searched for a request.
OTHERS = ("openai", "anthropic")
_LOOK = 1 << 20


def source(
    names: Sequence[str],
    form: str,
    template: str | None,
    defaults: dict[str, Any],
    keep: Sequence[str] | None = None,
    *,
    model: str = "",
    drop: Sequence[str] = (),
) -> tuple[InputSource, dict[str, Any]]:
    """Return the source, and the properties that a later run must find unchanged.

    `form` is auto, jsonl, csv, files, files-from, openai or anthropic. `template` is a file's name or the text itself.
    `model` and `drop` are for requests of others (see `RequestLines`). Raise UsageError.
    """
    text = None if template is None else read_template(template)
    same: dict[str, Any] = {"template": text} | ({} if keep is None else {"keep": [*keep]})
    if form in ("files", "files-from"):
        made = Template("{text}" if text is None else text)
        paths = list(_from_lists(names) if form == "files-from" else _files(names))
        if not paths:
            raise UsageError("there are no files", hint="name files, directories or patterns")
        return Files(paths, defaults, made, keep), {"form": "files", **same}
    if len(names) != 1:
        raise UsageError(f"a batch has one input, not {len(names)}", hint="for a list of text files add --files")
    suffix = Path(names[0]).suffix.lower()
    if form == "csv" or (form == "auto" and suffix in (".csv", ".tsv")):
        made = Template("{prompt}" if text is None else text)
        file = _open(names[0])
        table = Csv(file, defaults, made, "\t" if suffix == ".tsv" else _delimiter(file), keep)
        return table, {"form": "csv", **same}
    file = _open(names[0])
    if form in OTHERS or (form == "auto" and text is None):
        found = _requests(file, form, defaults, model, drop)
        if found is not None:
            if text is not None or keep is not None:
                raise UsageError(f"--template and --keep are not for --format {found.form}", hint="leave them out")
            return found, {"form": found.form, "drop": [*drop]} | same
    if drop:
        raise UsageError(f"--drop is for requests of others (--format {' or '.join(OTHERS)})")
    own = None if text is None else Template(text)
    return JsonLines(file, defaults, own, keep), {"form": "jsonl", **same}


def form_of(journal: Journal) -> str:
    """Return the form of the input that a journal was begun with; "" before there is one."""
    return str(json.loads(journal.about("options") or "{}").get("form", ""))


def _requests(
    file: IO[bytes], form: str, defaults: dict[str, Any], model: str, drop: Sequence[str]
) -> RequestLines | None:
    """Return the source of a batch file of others, or None if it is none: what reads it takes a moment to import."""
    file.seek(0)
    if form == "auto" and b'"custom_id"' not in file.read(_LOOK):
        return None
    from farmhand.batch import request_files

    try:
        form = form if form in OTHERS else request_files.form_of_file(file)
    except DoubledKey as error:
        raise UsageError(f"the input {error}", code="invalid_input", hint="take one of them out") from None
    return request_files.RequestLines(file, form, defaults, model, drop) if form else None


def _open(name: str) -> IO[bytes]:
    """Open the input, seekable: other inputs are copied to an unnamed file."""
    try:
        # Not closed here: the source reads it later.
        file = os.fdopen(os.dup(0), "rb") if name == "-" else open(name, "rb")  # noqa: SIM115
        mode = os.fstat(file.fileno()).st_mode
        check_stream(file.fileno())
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}", code="invalid_file") from None
    if stat.S_ISREG(mode):
        return _in_utf_8(file, name)
    if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and name != "-" and os.path.realpath(name) != os.devnull):
        raise UsageError(f"{name} is a device", code="invalid_file", hint="name a file, or pipe the tasks in")
    if name == "-" and sys.stdin is not None and os.isatty(0):
        raise UsageError("stdin is a terminal", hint="pipe the tasks in, or name a file")
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the source
    with file:
        shutil.copyfileobj(file, copy)
    return _in_utf_8(copy, name)


def _in_utf_8(file: IO[bytes], name: str) -> IO[bytes]:
    """Return the file; one in UTF-16, as PowerShell writes it, as an unnamed copy in UTF-8."""
    file.seek(0)
    marked = is_utf_16(file.read(2))
    file.seek(0)
    if not marked:
        return file
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the source
    try:
        with io.TextIOWrapper(file, "utf-16", newline="") as text:
            for piece in iter(lambda: text.read(1 << 20), ""):
                copy.write(piece.encode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} {broken(error)}", code="invalid_file") from None
    copy.seek(0)
    return copy


def _files(names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        path = Path(name)
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*") if _plain(found, path))
        elif path.exists() or not glob.has_magic(name):
            yield path
        else:
            found = sorted(glob.glob(name, recursive=True))
            if not found:
                raise UsageError(f"no file matches {name}", code="invalid_file")
            yield from (Path(one) for one in found if Path(one).is_file())


def _plain(path: Path, top: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(top).parts)


def _from_lists(names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        with _open(name) as file:
            for line in file:
                text = os.fsdecode(line.rstrip(b"\r\n").removeprefix(codecs.BOM_UTF8))
                if text.strip():
                    yield Path(text)


def _delimiter(file: IO[bytes]) -> str:
    """Return the delimiter of the header: a comma if there is one, else those of spreadsheets in other locales."""
    header = re.sub(rb'"[^"]*"', b"", file.readline(_MAX_HEADER))  # a name in quotes may have a comma
    return next((mark for mark in ",;\t" if mark.encode() in header), ",")
