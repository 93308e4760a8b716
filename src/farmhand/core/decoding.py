"""Decoding what the operator's shell gives: arguments, and a stdin that can be read to its end."""

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
    """An argument's text, which is UTF-8 whatever the locale says. Raises UsageError where it is not.

    What the locale cannot read comes in as lone surrogates: in a C locale that is everything but ASCII.
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
    """Return the text of a name, which is sent, kept and shown: it may hold no key. Raises UsageError."""
    text = as_text(argument, where)
    if redact(text) != text:
        hint = "take it out: it would be sent and kept"
        raise UsageError(f"an API key stands in {where}", code="key_in_task", hint=hint)
    return text


def as_names(arguments: Iterable[str], where: str) -> list[str]:
    """The names in arguments that each hold some, with commas between. Raises UsageError."""
    return [name.strip() for part in arguments for name in as_name(part, where).split(",") if name.strip()]


def shown(path: str | PathLike[str]) -> str:
    """A file's name as text; bytes of it that are not UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def not_text(where: str) -> UsageError:
    """The refusal of what is not UTF-8."""
    return UsageError(f"{where} is not valid UTF-8", code="invalid_prompt", hint="convert it first")


def check_stream(descriptor: int) -> None:
    """Raise OSError where `descriptor` is a socket that has no end to read to: one of datagrams, say."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return
    held = socket.socket(fileno=os.dup(descriptor))
    kind = held.type
    held.close()
    if kind != socket.SOCK_STREAM:
        raise OSError(errno.ESOCKTNOSUPPORT, "it is a socket, but not a stream")
