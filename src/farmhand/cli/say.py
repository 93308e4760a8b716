"""A command's messages on stderr, and the one place that turns an error into such a line and an exit status."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.keys import without_secrets

#: Characters of remote text that must not reach a terminal. C0 (but tab and line feed), DEL and C1 are terminal
#: commands. Direction marks make text read as another text. Lone surrogates cannot be encoded.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: The program's name, printed before each message; set by `end`.
_program = "farmhand"


def end(program: str, call: Callable[[], int | None]) -> NoReturn:
    """Run `call` and exit with its status. A failure is one line on stderr."""
    global _program
    _program = program
    for stream in (sys.stdout, sys.stderr):
        # A terminal that is not UTF-8 gets replacement characters, so that no answer is lost for one letter.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        if sys.stdout is None:
            raise UsageError("stdout is closed: there is nowhere to write to")
        status = call()
        sys.stdout.flush()
    except FarmhandError as error:
        line, status = str(error), error.exit_code
    except KeyboardInterrupt:
        line, status = "stopped", 130
    except BrokenPipeError:
        # The reader of our output is gone. Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(1)
    except Exception as error:
        if os.environ.get("FARMHAND_DEBUG"):
            from traceback import format_exc

            sys.stderr.write(without_secrets(format_exc()))
            os._exit(1)
        what = f"{type(error).__name__}: {error}"
        note(what if isinstance(error, OSError) else f"{what} (FARMHAND_DEBUG=1 shows where)")
        # Not sys.exit: flushing a stdout that is full would fail a second time.
        os._exit(1)
    else:
        sys.exit(status or 0)
    note(line)
    sys.exit(status)


def note(text: str) -> None:
    """Print one line on stderr, after the program's name. Keys in the text are removed."""
    print(f"{_program}: {one_line(without_secrets(text))}", file=sys.stderr, flush=True)  # noqa: T201  (the commands' own stderr)


def one_line(text: str) -> str:
    """Return `text` in one line, through `printable`."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Return `text` with the characters of CONTROL replaced by U+FFFD."""
    return CONTROL.sub("\ufffd", text)


def ask(question: str) -> None:
    """Ask on the terminal. Raise UsageError where there is none, and FarmhandError unless the answer is yes."""
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise UsageError(f"{question} There is no terminal to ask on", hint="--yes answers yes")
    print(f"{_program}: {question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise FarmhandError("nothing was changed")
