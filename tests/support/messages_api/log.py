"""The log of what was received: a ring in memory, and a JSONL file where one is asked for."""

from __future__ import annotations

import base64
import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request and what became of it. `body` is text; bytes that are no UTF-8 are in `body_base64`.

    `limited` names the limit that refused it. `batch` is the Message Batch it is about. A request of a batch, once
    processed, is an entry of method `BATCH` in the file only, with the number of the call that created the batch, its
    `custom_id` and `result`.
    """

    n: int
    time: float
    method: str
    path: str
    query: str
    headers: dict[str, str]
    size: int
    sha256: str
    body: str = ""
    body_base64: str = ""
    model: str = ""
    status: int = 0
    request_id: str = ""
    fault: str = ""
    error: str = ""
    aborted: bool = False
    duration_ms: float = 0.0
    usage: dict[str, Any] = {}
    limited: str = ""
    batch: str = ""
    custom_id: str = ""
    result: str = ""


class Log:
    """Entries in the order of arrival. The file gets a line when a request is over."""

    def __init__(self, path: Path | None = None, *, keep: int = 2000) -> None:
        self._ring: deque[Entry] = deque(maxlen=keep)
        self._count = 0
        #: Called with every request that is over.
        self.on_close: Callable[[Entry], None] | None = None
        self._file: BinaryIO | None = path.open("ab", buffering=0) if path else None

    def open(
        self, method: str, path: str, query: str, headers: dict[str, str], raw: bytes, *, most: int = sys.maxsize
    ) -> Entry:
        """Note a request that has come in. Of a body of more than `most` bytes only size and hash are kept."""
        self._count += 1
        entry = Entry(
            n=self._count,
            time=time.time(),
            method=method,
            path=path,
            query=query,
            headers=headers,
            size=len(raw),
            sha256=hashlib.sha256(raw).hexdigest(),
        )
        try:
            entry.body = raw.decode() if len(raw) <= most else ""
        except UnicodeDecodeError:
            entry.body_base64 = base64.b64encode(raw).decode()
        self._ring.append(entry)
        return entry

    def close(self, entry: Entry) -> None:
        """Note that a request is over."""
        entry.duration_ms = round((time.time() - entry.time) * 1000, 3)
        if self.on_close is not None:
            self.on_close(entry)
        if self._file is not None:
            self._file.write(msgspec.json.encode(entry) + b"\n")

    def entries(self, after: int = 0) -> list[Entry]:
        """What the ring holds with a number above `after`."""
        return [entry for entry in self._ring if entry.n > after]

    def clear(self) -> None:
        """Empty the ring; the file stays."""
        self._ring.clear()

    def shut(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
