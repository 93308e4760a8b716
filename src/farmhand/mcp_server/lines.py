"""The lines that a client sends, so that each request gets an answer: the SDK drops what it cannot parse."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, BinaryIO

import anyio.to_thread

from farmhand.core.task import MAX_PROMPT_BYTES

#: The longest line in bytes: a prompt of the maximum size with every byte escaped, and room for more.
MOST_BYTES = 16 * MAX_PROMPT_BYTES
#: A request's id, which clients write before all else but the version, or after it, at the very end.
_NUMBER = rb'"id"\s*:\s*(\d{1,15}|"[\w-]{1,64}")\s*'
_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"\s*'
_FIRST = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb",\s*)?" + _NUMBER + rb",")
_LAST = re.compile(rb",\s*" + _NUMBER + rb"(?:,\s*" + _VERSION + rb")?\}\s*$")
_EDGE = 4096
_BLANK = " \t\r\n"
#: So many brackets are looked at: the SDK's parser takes 200 levels.
_BRACKETS = 150
_SURROGATE = re.compile("[\ud800-\udfff]")
#: What a request that the SDK would drop is answered by, as a method that there is not.
_TOO_LONG = f"a request of more than {MOST_BYTES} bytes"
_TOO_DEEP = "a request with too many levels of lists and objects"
_BATCH = "a batch of requests, which MCP has not had since 2025-06-18: send each in a line of its own"


class ClientLines:
    """The lines of stdin, from which this process's own standard input is cut off."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        """`on_end` is called once the client has sent its last line, before anything is ended for it."""
        self._on_end = on_end
        self._file: BinaryIO = os.fdopen(os.dup(0), "rb", closefd=False)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield each line, in UTF-8 and with U+FFFD for what is half a character."""
        while line := await anyio.to_thread.run_sync(self._read, abandon_on_cancel=True):
            for one in _unbatched(line):
                yield one
        self._on_end()

    def _read(self) -> str:
        line = self._file.readline(MOST_BYTES)
        if len(line) == MOST_BYTES and not line.endswith(b"\n"):
            end = line[-_EDGE:]
            while more := self._file.readline(MOST_BYTES):
                end = (end + more)[-_EDGE:]
                if more.endswith(b"\n"):
                    break
            return _refused(line, end, _TOO_LONG) or "\n"
        if line.count(b"{") + line.count(b"[") > _BRACKETS and _is_too_deep(line):
            return _refused(line, line[-_EDGE:], _TOO_DEEP) or "\n"
        text = line.decode("utf-8", "replace")
        if "\\ud" in text or "\\uD" in text:
            with suppress(ValueError, RecursionError):
                clean = _SURROGATE.sub("\ufffd", json.dumps(json.loads(text), ensure_ascii=False))
                return clean + "\n"
        return text


def _refused(start: bytes, end: bytes, why: str) -> str | None:
    """Return a request with the id of one that begins and ends so, which gets an error; None if that has no id."""
    found = _FIRST.match(start[:_EDGE]) or _LAST.search(end)
    return _answered(json.loads(found[1]), why) if found else None


def _answered(number: Any, why: str) -> str:
    """Return a request with this id that gets an error: `why`."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": why}) + "\n"


def _unbatched(line: str) -> list[str]:
    """Return the line; of a list of messages, what gets an error under the id of each request in it."""
    if not line.lstrip(_BLANK).startswith("["):
        return [line]
    with suppress(ValueError, RecursionError):
        found = [one for one in json.loads(line) if isinstance(one, dict) and "method" in one]
        return [_answered(one["id"], _BATCH) for one in found if isinstance(one.get("id"), int | str)]
    return [line]


def _is_too_deep(line: bytes) -> bool:
    from pydantic_core import from_json

    try:
        from_json(line)
    except ValueError as error:
        return "recursion" in str(error)
    return False
