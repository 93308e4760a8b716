"""Decoding of the operator's input: arguments, files and JSON, and a stdin that must have an end."""

from __future__ import annotations

import codecs
import errno
import json
import os
import socket
import stat
from collections.abc import Iterable
from os import PathLike
from typing import Any

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


def as_labels(arguments: Iterable[str]) -> dict[str, str]:
    """Return the labels of arguments of the form NAME=VALUE. Raise UsageError."""
    found: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = as_name(argument, "--label").partition("=")
        if not (name and equals):
            raise UsageError(f"--label {argument!r:.80} is not of the form NAME=VALUE")
        if found.setdefault(name, value) != value:
            raise UsageError(f"--label {name!r:.80} is given twice, with two values", hint="a label has one value")
    return found


def shown(path: str | PathLike[str]) -> str:
    """Return a file's name as text; bytes that are not UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def not_text(where: str) -> UsageError:
    """Return the error for input that is not UTF-8."""
    return UsageError(f"{where} is not valid UTF-8", code="invalid_prompt", hint="convert it first")


def is_utf_16(data: bytes) -> bool:
    """Return whether a file that begins with `data` is in UTF-16 and says so by its mark."""
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def decoded(data: bytes) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with its mark, as PowerShell writes it; no mark is part of it.

    Raise UnicodeDecodeError; `broken` says it.
    """
    return data.decode("utf-16" if is_utf_16(data) else "utf-8-sig")


def broken(error: UnicodeDecodeError) -> str:
    """Return what is wrong with a file that cannot be decoded."""
    return f"is not valid {'UTF-16' if '16' in error.encoding else 'UTF-8'} at byte {error.start}"


class KeyTwice(ValueError):
    """An object of JSON text has a key twice: which of the two is meant nobody knows."""


def json_value(text: str) -> Any:
    """Return the value of JSON text. Raise KeyTwice, else ValueError or RecursionError if it is not JSON."""
    twice: list[str] = []

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs) and not twice:
            names = [name for name, _ in pairs]
            twice.append(next(name for name in found if names.count(name) > 1))
        return found

    value = json.loads(text, object_pairs_hook=made)
    if twice:
        raise KeyTwice(f"has the key {redact(twice[0])!r:.80} twice")
    return value


def check_stream(descriptor: int) -> None:
    """Raise OSError if `descriptor` is a socket without an end of file, such as a datagram socket."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return
    with socket.socket(fileno=os.dup(descriptor)) as held:
        kind = held.type
    if kind != socket.SOCK_STREAM:
        raise OSError(errno.ESOCKTNOSUPPORT, "it is a socket, but not a stream")
