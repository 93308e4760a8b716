"""The prompt, assembled from the argument, stdin and files. All of it is data: nothing is expanded or trimmed.

Only a file's byte-order mark is no part of it.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

from farmhand.cli.say import note
from farmhand.cli.waiting import waits_for
from farmhand.core.decoding import as_text, broken, check_stream, decoded, is_utf_16, shown
from farmhand.core.errors import UsageError
from farmhand.core.files import read_most, read_open
from farmhand.core.ids import MAX_FILE_BYTES, MAX_PROMPT_BYTES

#: How long to wait for input on a pipe if the prompt is also given as an argument. Seconds.
GIVE_UP_AFTER_S = 3.0
_GOING_ON = "nothing came on stdin within {:g} s, so it is left out (--no-stdin saves the wait, -f - waits for it)"
_GIVE = "give it as an argument or on stdin"
_CHUNK = 1024 * 1024
#: The most bytes of a task as JSON: its files and turns (30 MB), its prompt with every byte escaped, and room for more.
MAX_TASK_BYTES = 128 * 1024 * 1024


class Prompt(NamedTuple):
    """The text of a prompt, and its pictures and PDFs as the wire has them: `farmhand.core.task.Attachment`."""

    text: str
    files: list[dict[str, str]]


def assemble(argument: str | None, files: Sequence[str], *, use_stdin: bool = True) -> Prompt:
    """Return the prompt: the argument, stdin, then each file under a header line, separated by blank lines.

    Pictures and PDFs, told by their content, are not part of the text.
    Stdin is read to its end if the argument or a file is `-`, or if there is neither. Otherwise it is read only if it
    is a regular file at its start, or a pipe or stream socket on which data comes soon. A terminal, /dev/null and a
    file that is already being read (in the body of a `while read` loop) are not read. Raises UsageError.
    """
    parts = [] if argument is None or argument == "-" else [as_text(argument, "the prompt")]
    asked_for = "-" in (argument, *files)
    if asked_for and not use_stdin:
        raise UsageError("- is stdin, and --no-stdin leaves it out", hint="choose one")
    required = asked_for or (argument is None and not files)
    attached = []
    empty = []
    if use_stdin and (piped := _from_stdin(required=required, forced=asked_for)):
        if isinstance(piped, str):
            parts.append(piped)
        else:
            attached.append(piped)
    for name in files:
        if name == "-":
            continue
        if isinstance(found := _from_file(name), str):
            if not found.strip():
                empty.append(shown(name))
            parts.append(f"----- file: {shown(name)} -----\n{found}")
        else:
            attached.append(found)
    prompt = "\n\n".join(parts)
    if attached and not prompt.strip():
        raise UsageError("the prompt is empty", code="empty_prompt", hint="say what to do with the file")
    if not prompt.strip() or (empty and len(empty) == len(parts)):
        raise UsageError("the prompt is empty", code="empty_prompt", hint=_GIVE)
    if empty:  # what made it may have failed
        note(f"-f {', '.join(empty)}: nothing is in it")
    size = len(prompt.encode())
    if size > MAX_PROMPT_BYTES:
        raise _too_large(f"the prompt has {size} bytes")
    return Prompt(prompt, attached)


def read_text(name: str, option: str) -> tuple[str, str]:
    """Return the whole text of the file that `option` names (-: stdin), and what to call it. Raises UsageError."""
    where = f"{option} {shown(name)}"
    try:
        if name == "-":
            if sys.stdin is None or sys.stdin.closed:
                raise UsageError(f"{where}: there is no stdin")
            check_stream(sys.stdin.fileno())
            return decoded(read_open(sys.stdin.buffer, MAX_TASK_BYTES)), where
        return decoded(read_most(name, MAX_TASK_BYTES)), where
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} {broken(error)}", code="invalid_prompt") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: {_reason(error)}", code="invalid_file") from None


def _from_file(name: str) -> str | dict[str, str]:
    try:
        # A FIFO that nobody writes to is waited for.
        with nullcontext() if os.path.isfile(name) else waits_for(f"reading {shown(name)}"), open(name, "rb") as file:
            data = _whole(file.read)
    except (OSError, ValueError) as error:
        raise UsageError(f"-f {shown(name)}: {_reason(error)}", code="invalid_file") from None
    return _content(data, f"the file {shown(name)}", os.path.basename(shown(name)))


def _from_stdin(*, required: bool, forced: bool) -> str | dict[str, str]:
    if sys.stdin is None or sys.stdin.closed:
        return ""
    descriptor = sys.stdin.fileno()
    if required and not forced and os.isatty(descriptor):
        raise UsageError("there is no prompt", code="empty_prompt", hint=_GIVE)
    try:
        if not required and not _has_something_for_us(descriptor):
            return ""
        check_stream(descriptor)
        if not required and not select.select([descriptor], [], [], GIVE_UP_AFTER_S)[0]:
            note(_GOING_ON.format(GIVE_UP_AFTER_S))
            return ""
        data = _whole(lambda most: _read(descriptor, most))
    except OSError as error:
        if not required:
            note(f"stdin cannot be read, so it is left out: {_reason(error)}")
            return ""
        raise UsageError(f"stdin cannot be read: {_reason(error)}", code="invalid_file") from None
    return _content(data, "stdin", "stdin")


def _has_something_for_us(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _whole(read: Callable[[int], bytes]) -> bytes:
    """Return what `read` gives, up to one byte more than the limit of what begins like it."""
    start = read(_CHUNK)
    if len(start) < _CHUNK:  # a terminal would have to end twice
        return start
    return start + read((MAX_FILE_BYTES if _kind(start) else MAX_PROMPT_BYTES) + 1 - len(start))


def _kind(data: bytes) -> str:
    # Text has none of these bytes. Only what may be a picture or a PDF imports what knows them.
    if data[:1] not in (b"\x89", b"\xff", b"G", b"R", b"%"):
        return ""
    from farmhand.core.attachments import media_type

    return media_type(data)


def _content(data: bytes, what: str, name: str) -> str | dict[str, str]:
    """Return text as it is, a picture or a PDF as an attachment. Raise UsageError."""
    if not (kind := _kind(data)):
        return _text(data, what)
    if len(data) > MAX_FILE_BYTES:
        hint = "make it smaller, or split it"
        raise UsageError(f"{what} has more than {MAX_FILE_BYTES} bytes", code="invalid_file", hint=hint)
    from binascii import b2a_base64

    return {"media_type": kind, "data": b2a_base64(data, newline=False).decode(), "name": name}


def _read(descriptor: int, most: int) -> bytes:
    """Read to the end, or `most` bytes. The descriptor may be non-blocking."""
    data = bytearray()
    while len(data) < most:
        try:
            piece = os.read(descriptor, min(_CHUNK, most - len(data)))
        except BlockingIOError:
            select.select([descriptor], [], [])
            continue
        if not piece:
            break
        data += piece
    return bytes(data)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _text(data: bytes, what: str) -> str:
    if len(data) > MAX_PROMPT_BYTES:
        raise _too_large(what)
    try:
        text = decoded(data)
        if (nul := text.find("\0")) < 0:
            return text
    except UnicodeDecodeError as error:
        if (nul := data.find(0)) < 0 or is_utf_16(data):
            line = data.count(b"\n", 0, error.start) + 1
            where = f"{what} {broken(error)}, in line {line}"
            raise UsageError(where, code="invalid_prompt", hint="convert it to UTF-8 first") from None
    hint = "give text, or a PNG, JPEG, GIF, WebP or PDF"
    raise UsageError(f"{what} has a NUL byte at {nul}: it is binary", code="invalid_prompt", hint=hint)


def _too_large(what: str) -> UsageError:
    return UsageError(f"{what}: a prompt takes {MAX_PROMPT_BYTES} bytes at most", code="too_large", hint="split it")
