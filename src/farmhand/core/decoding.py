"""Decoding of the shell's input: arguments, and a stdin that must have an end."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable
from os import PathLike

from farmhand.core.errors import UsageError
from farmhand.core.keys import redact


def as_text(argument: str, where: str) -> str:
    """Return an argument's text, decoded as UTF-8 whatever the locale. Raise UsageError if it is not UTF-8.

    Bytes that the locale cannot decode arrive as lone surrogates; in a C locale those are all non-ASCII bytes.
    """
    try:
        argument.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(argument).decode("utf-8")
        except UnicodeError:
            raise not_text(where) from None
    return argument


def as_name(argument: str, where: str) -> str:
    """Return the text of a name. Raise UsageError if it contains a key, because names are sent, kept and shown."""
    text = as_text(argument, where)
    if redact(text) != text:
        hint = "take it out: it would be sent and kept"
        raise UsageError(f"an API key stands in {where}", code="key_in_task", hint=hint)
    return text


def as_names(arguments: Iterable[str], where: str) -> list[str]:
    """Return the names in comma-separated arguments. Raise UsageError."""
    return [name.strip() for part in arguments for name in as_name(part, where).split(",") if name.strip()]


def shown(path: str | PathLike[str]) -> str:
    """Return a file's name as text; bytes that are not UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def not_text(where: str) -> UsageError:
    """Return the error for input that is not UTF-8."""
    return UsageError(f"{where} is not valid UTF-8", code="invalid_prompt", hint="convert it first")


def check_stream(descriptor: int) -> None:
    """Raise OSError if `descriptor` is a socket without an end of file, such as a datagram socket."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return
    with socket.socket(fileno=os.dup(descriptor)) as held:
        kind = held.type
    if kind != socket.SOCK_STREAM:
        raise OSError(errno.ESOCKTNOSUPPORT, "it is a socket, but not a stream")
