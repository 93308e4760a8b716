"""The lines that a client sends, so that each request gets an answer: the SDK drops what it cannot parse."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import BinaryIO

import anyio.to_thread

from farmhand.core.task import MAX_PROMPT_BYTES

#: The longest line in bytes: a prompt of the maximum size with every byte escaped, and room for more.
MOST_BYTES = 16 * MAX_PROMPT_BYTES
_ID = re.compile(rb'"id"\s*:\s*(\d{1,15}|"[\w-]{1,64}")')
_SURROGATE = re.compile("[\ud800-\udfff]")
#: What a request that is too long is answered by, as a method that there is not.
_TOO_LONG = f"a request of more than {MOST_BYTES} bytes"


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
            yield line
        self._on_end()

    def _read(self) -> str:
        line = self._file.readline(MOST_BYTES)
        if len(line) == MOST_BYTES and not line.endswith(b"\n"):
            while (more := self._file.readline(MOST_BYTES)) and not more.endswith(b"\n"):
                pass
            found = _ID.search(line[:4096])
            return (
                json.dumps({"jsonrpc": "2.0", "id": json.loads(found[1]) if found else 0, "method": _TOO_LONG}) + "\n"
            )
        text = line.decode("utf-8", "replace")
        if "\\ud" in text or "\\uD" in text:
            with suppress(ValueError, RecursionError):
                clean = _SURROGATE.sub("\ufffd", json.dumps(json.loads(text), ensure_ascii=False))
                return clean + "\n"
        return text
