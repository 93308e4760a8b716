"""The prompt, assembled from the argument, stdin and files. All of it is data: nothing is expanded or trimmed."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Sequence

from farmhand.cli.say import note
from farmhand.core.decoding import as_text, check_stream, shown
from farmhand.core.errors import UsageError
from farmhand.core.ids import MAX_PROMPT_BYTES

#: How long to wait for input on a pipe if the prompt is also given as an argument. Seconds.
GIVE_UP_AFTER_S = 3.0
_GOING_ON = "nothing came on stdin within {:g} s, so it is left out (--no-stdin saves the wait, -f - waits for it)"
_GIVE = "give it as an argument or on stdin"
_CHUNK = 1024 * 1024


def assemble(argument: str | None, files: Sequence[str], *, use_stdin: bool = True) -> str:
    """Return the prompt: the argument, stdin, then each file under a header line, separated by blank lines.

    Stdin is read to its end if the argument or a file is `-`, or if there is neither. Otherwise it is read only if it
    is a regular file at its start, or a pipe or stream socket on which data comes soon. A terminal, /dev/null and a
    file that is already being read (in the body of a `while read` loop) are not read. Raises UsageError.
    """
    parts = [] if argument is None or argument == "-" else [as_text(argument, "the prompt")]
    asked_for = "-" in (argument, *files)
    required = asked_for or (argument is None and not files)
    if use_stdin and (piped := _from_stdin(required=required, forced=asked_for)):
        parts.append(piped)
    parts += [f"----- file: {shown(name)} -----\n{_from_file(name)}" for name in files if name != "-"]
    prompt = "\n\n".join(parts)
    if not prompt.strip():
        raise UsageError("the prompt is empty", code="empty_prompt", hint=_GIVE)
    size = len(prompt.encode())
    if size > MAX_PROMPT_BYTES:
        raise _too_large(f"the prompt has {size} bytes")
    return prompt


def _from_file(name: str) -> str:
    try:
        with open(name, "rb") as file:
            data = file.read(MAX_PROMPT_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"-f {shown(name)}: {_reason(error)}", code="invalid_file") from None
    return _text(data, f"the file {shown(name)}")


def _from_stdin(*, required: bool, forced: bool) -> str:
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
        data = _read(descriptor)
    except OSError as error:
        if not required:
            note(f"stdin cannot be read, so it is left out: {_reason(error)}")
            return ""
        raise UsageError(f"stdin cannot be read: {_reason(error)}", code="invalid_file") from None
    return _text(data, "stdin")


def _has_something_for_us(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _read(descriptor: int) -> bytes:
    """Read to the end, or until the size limit is exceeded. The descriptor may be non-blocking."""
    data = bytearray()
    while len(data) <= MAX_PROMPT_BYTES:
        try:
            piece = os.read(descriptor, _CHUNK)
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
    if (nul := data.find(0)) >= 0:
        raise UsageError(f"{what} has a NUL byte at {nul}: it is binary", code="invalid_prompt", hint="give text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"{what} is not valid UTF-8 at byte {error.start}, in line {line}"
        raise UsageError(where, code="invalid_prompt", hint="convert it to UTF-8 first") from None


def _too_large(what: str) -> UsageError:
    return UsageError(f"{what}: a prompt takes {MAX_PROMPT_BYTES} bytes at most", code="too_large", hint="split it")
