"""Creation of an input source from the names on the command line."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from farmhand.batch.inputs import Csv, Files, InputSource, JsonLines, TaskMaker
from farmhand.batch.template import Template
from farmhand.core.decoding import as_text, check_stream
from farmhand.core.errors import UsageError

#: The templates used if none is given.
CSV_TEMPLATE = "{prompt}"
FILES_TEMPLATE = "{text}"
_MAX_HEADER = 1 << 20
_SUFFIXES = (".csv", ".tsv")
_DELIMITERS = {".tsv": "\t"}


def source(names: Sequence[str], form: str, template: str | None, defaults: dict[str, Any]) -> tuple[InputSource, Any]:
    """Return the source, and the properties that a later run must find unchanged.

    `form` is auto, jsonl, csv, files or files-from. `template` is a file's name or the text itself. Raise UsageError.
    """
    text = None if template is None else read_template(template)
    if form in ("files", "files-from"):
        made = Template(FILES_TEMPLATE if text is None else text)
        paths = list(_from_lists(names) if form == "files-from" else _files(names))
        if not paths:
            raise UsageError("there are no files", hint="name files, directories or patterns")
        return Files(paths, TaskMaker(defaults, made)), {"form": "files", "template": text}
    if len(names) != 1:
        raise UsageError(f"a batch has one input, not {len(names)}", hint="for a list of text files add --files")
    suffix = Path(names[0]).suffix.lower()
    if form == "csv" or (form == "auto" and suffix in _SUFFIXES):
        made = Template(CSV_TEMPLATE if text is None else text)
        file = _open(names[0])
        table = Csv(file, TaskMaker(defaults, made), _DELIMITERS.get(suffix) or _delimiter(file))
        return table, {"form": "csv", "template": text}
    maker = TaskMaker(defaults, None if text is None else Template(text))
    return JsonLines(_open(names[0]), maker), {"form": "jsonl", "template": text}


def _delimiter(file: IO[bytes]) -> str:
    """Return the delimiter of the header: a comma if there is one, else those of spreadsheets in other locales."""
    header = file.readline(_MAX_HEADER)
    file.seek(0)
    return next((mark for mark in ",;\t" if mark.encode() in header), ",")


def read_template(given: str) -> str:
    """Return the text of the file `given`, or `given` itself. Raise UsageError."""
    path = Path(given)
    try:
        if len(given) < 4096 and "\n" not in given and path.is_file():
            return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"--template {given}: not valid UTF-8 at byte {error.start}"
        raise UsageError(where, code="invalid_template") from None
    except OSError as error:
        raise UsageError(f"--template {given}: {error.strerror}", code="invalid_template") from None
    text = as_text(given, "--template")
    if "{" not in text:
        what = f"--template {text!r:.80} is no file, and as a text it names no {{column}}"
        raise UsageError(what, code="invalid_template")
    return text


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
        return file
    if name == "-" and sys.stdin is not None and os.isatty(0):
        raise UsageError("stdin is a terminal", hint="pipe the tasks in, or name a file")
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the source
    with file:
        shutil.copyfileobj(file, copy)
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
    hidden = any(part.startswith(".") for part in path.relative_to(top).parts)
    return path.is_file() and not hidden


def _from_lists(names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        with _open(name) as file:
            for line in file:
                text = os.fsdecode(line.rstrip(b"\r\n"))
                if text.strip():
                    yield Path(text)
