"""A command's own words on stderr, and the one place where an error becomes a line there and an exit status."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.keys import without_secrets

#: What nothing from afar gives a terminal: C0 without tab and line feed, DEL, C1, which are commands there; what turns
#: the direction of text, so that it reads as another; lone surrogates, which no encoding has.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: What stands before the colon; set by `end`.
_program = "farmhand"


def end(program: str, call: Callable[[], int | None]) -> NoReturn:
    """Do `call` and end the process with its status. Failures are one line on stderr."""
    global _program
    _program = program
    for stream in (sys.stdout, sys.stderr):
        # A terminal that is not UTF-8 gets a replacement for what it has not: no answer is lost for a letter.
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
        # Whoever read our output has gone; Python must not complain when it flushes at exit.
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
    """One line on stderr under the program's name. Whatever it echoes, it holds no key."""
    print(f"{_program}: {one_line(without_secrets(text))}", file=sys.stderr, flush=True)  # noqa: T201  (the commands' own stderr)


def one_line(text: str) -> str:
    """`text` in one line, as `printable` has it."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """`text` for a terminal: what would be a command there, or turn what is read, becomes U+FFFD."""
    return CONTROL.sub("\ufffd", text)
