"""Putting a prompt together from the argument, stdin and files. All of it is data: nothing is expanded or trimmed."""

from __future__ import annotations

import os
import select
import stat
import sys

from farmhand.cli.say import note
from farmhand.errors import UsageError

TYPE_CHECKING = False  # as in farmhand.wire.http1
if TYPE_CHECKING:
    from collections.abc import Sequence

#: As farmhand.task.MAX_PROMPT_BYTES, which is not imported here to keep the start short; a test compares them.
MAX_PROMPT_BYTES = 4 * 1024 * 1024
#: Beside an argument, stdin is a bonus: say that we wait for it, and do not wait for ever.
NOTE_AFTER_S = 3.0
GIVE_UP_AFTER_S = 60.0
_WAITING = "waiting for stdin; if nothing is piped in, use < /dev/null or --no-stdin"


def assemble(argument: str | None, files: Sequence[str], *, use_stdin: bool = True) -> str:
    """The prompt: the argument, then stdin, then each file under a header line, with blank lines between.

    Stdin is read to its end when the argument is `-`, or when there is neither argument nor file. Beside those it is
    read when it is a pipe, or a regular file at its start; a terminal, /dev/null and a file that somebody else is
    reading (the body of a `while read` loop) are left alone. Raises UsageError.
    """
    parts: list[str] = []
    if argument not in (None, "-"):
        assert argument is not None  # noqa: S101  (for the type checker)
        parts.append(_from_argument(argument))
    if use_stdin:
        piped = _from_stdin(required=argument == "-" or (argument is None and not files), forced=argument == "-")
        if piped:
            parts.append(piped)
    parts += [f"----- file: {name} -----\n{_from_file(name)}" for name in files]
    prompt = "\n\n".join(parts)
    if not prompt.strip():
        raise UsageError("the prompt is empty", code="empty_prompt", hint="give it as an argument or on stdin")
    size = len(prompt.encode())
    if size > MAX_PROMPT_BYTES:
        raise _too_large(f"the prompt has {size} bytes")
    return prompt


def _from_argument(argument: str) -> str:
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UsageError("the prompt is not valid UTF-8", code="invalid_prompt", hint="convert it first") from None
    return argument


def _from_file(name: str) -> str:
    try:
        with open(name, "rb") as file:
            data = file.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"-f {name}: {error.strerror}", code="invalid_file") from None
    return _text(data, f"the file {name}")


def _from_stdin(*, required: bool, forced: bool) -> str:
    if sys.stdin is None or sys.stdin.closed:
        return ""
    descriptor = sys.stdin.fileno()
    if required:
        if os.isatty(descriptor) and not forced:
            raise UsageError("there is no prompt", code="empty_prompt", hint="give it as an argument or on stdin")
    elif not _has_something_for_us(descriptor):
        return ""
    else:
        _await_first_byte(descriptor)
    with os.fdopen(descriptor, "rb", closefd=False) as stream:
        return _text(stream.read(MAX_PROMPT_BYTES + 1), "stdin")


def _has_something_for_us(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    return stat.S_ISFIFO(mode)


def _await_first_byte(descriptor: int) -> None:
    if select.select([descriptor], [], [], NOTE_AFTER_S)[0]:
        return
    note(_WAITING)
    if not select.select([descriptor], [], [], GIVE_UP_AFTER_S - NOTE_AFTER_S)[0]:
        hint = (
            "use < /dev/null or --no-stdin if nothing is piped in; with - as the prompt stdin is awaited without limit"
        )
        raise UsageError(f"nothing came on stdin within {GIVE_UP_AFTER_S:g} s", hint=hint)


def _text(data: bytes, what: str) -> str:
    if len(data) > MAX_PROMPT_BYTES:
        raise _too_large(what)
    nul = data.find(0)
    if nul >= 0:
        raise UsageError(f"{what} has a NUL byte at {nul}: it is binary", code="invalid_prompt", hint="give text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"{what} is not valid UTF-8 at byte {error.start}"
        raise UsageError(where, code="invalid_prompt", hint="convert it to UTF-8 first") from None


def _too_large(what: str) -> UsageError:
    return UsageError(f"{what}: a prompt takes {MAX_PROMPT_BYTES} bytes at most", code="too_large", hint="split it")
