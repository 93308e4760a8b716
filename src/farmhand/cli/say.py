"""A command's messages on stderr, and the one place that turns an error into such a line and an exit status."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.keys import without_secrets
from farmhand.core.readable import printable

#: The program's name, printed before each message; set by `end`.
_program = "farmhand"


def nothing() -> None:
    """Do nothing."""


#: Takes away a line that is on the terminal only for now: see `waiting`.
before_note: Callable[[], None] = nothing


class StdoutLost(BaseException):
    """Nothing more can be written to stdout. No OSError: what reads and writes elsewhere must not take it for its own.

    `closed`: its reader is gone, as with `| head -1`, which is no failure to speak of.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"stdout cannot be written: {error.strerror}")
        self.closed = error.errno == errno.EPIPE
        # Of a closed pipe: what a shell says of a program that SIGPIPE has ended. Else as other tools do.
        self.exit_code = 141 if self.closed else 1


class _Output(io.BufferedWriter):
    """stdout or stderr. What cannot be written to stdout raises StdoutLost, once; from then on, writing does nothing.

    A lost stderr raises nothing: there is nobody to hear of it, and the work is worth more. It is not the raw stream: a
    signal that raises in Python code there, after its write, lets the buffer write the same bytes once more.
    """

    lost = False

    def write(self, data: Any) -> int:
        """Write as BufferedWriter does."""
        if not self.lost:
            try:
                return super().write(data)
            except OSError as error:
                self._lose(error)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Flush as BufferedWriter does."""
        if not self.lost:
            try:
                super().flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = True
        if self.fileno() == 1:
            raise StdoutLost(error) from None


def _guarded(stream: Any, number: int) -> Any:
    """Return a stream in the place of Python's own stdout or stderr; another one, of a test, is only reconfigured."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    # A terminal that is not UTF-8 gets replacement characters, so that no answer is lost for one letter.
    if stream not in (sys.__stdout__, sys.__stderr__):
        stream.reconfigure(errors="replace")
        return stream
    stream.flush()
    return io.TextIOWrapper(
        _Output(io.FileIO(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
    )


def end(program: str, call: Callable[[], int | None]) -> NoReturn:
    """Run `call` and exit with its status. A failure is one line on stderr."""
    global _program
    _program = program
    sys.stdout, sys.stderr = _guarded(sys.stdout, 1), _guarded(sys.stderr, 2)
    if sys.stderr is None:  # print would write to stdout then
        sys.stderr = io.StringIO()
    try:
        if sys.stdout is None:
            sys.stdout = io.StringIO()
            raise UsageError("stdout is closed: there is nowhere to write to")
        status = call()
        sys.stdout.flush()
    except StdoutLost as lost:
        line, status = "" if lost.closed else str(lost), lost.exit_code
    except FarmhandError as error:
        line, status = str(error), error.exit_code
    except KeyboardInterrupt:
        line, status = "stopped", 130
    except Exception as error:
        status = 1
        if os.environ.get("FARMHAND_DEBUG"):
            from traceback import format_exc

            line = ""
            sys.stderr.write(without_secrets(format_exc()))
        else:
            line = f"{type(error).__name__}: {error}"
            line += "" if isinstance(error, OSError) else " (FARMHAND_DEBUG=1 shows where)"
    else:
        line = ""
    if line:
        note(line)
    with contextlib.suppress(StdoutLost):  # what an error has left in the buffer; at Python's own exit it would be loud
        sys.stdout.flush()
    sys.exit(status or 0)


def note(text: str) -> None:
    """Print one line on stderr, after the program's name. Keys in the text are removed."""
    before_note()
    print(f"{_program}: {one_line(without_secrets(text))}", file=sys.stderr, flush=True)  # noqa: T201  (the commands' own stderr)


def one_line(text: str) -> str:
    """Return `text` in one line, through `printable`."""
    return printable(" ".join(text.split()))


def ask(question: str, *, declined: str = "nothing was changed") -> None:
    """Ask on the terminal. Raise UsageError where there is none, and FarmhandError `declined` unless yes is said."""
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise UsageError(f"{question} There is no terminal to ask on", hint="--yes answers yes")
    print(f"{_program}: {question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise FarmhandError(declined)
