"""A decoder of server-sent events that follows the specification and tolerates streams rewritten by gateways.

Source: the HTML standard, "Server-sent events": lines end with LF, CRLF or CR, a byte order mark may come first, and
several `data` lines make one event. In addition, a `data` line that is a whole JSON object is an event at once, so that
no event is lost if the blank line after it, or the end of the last line, is missing. A field `error` with an object is
an event of that name: so llama.cpp of 2025 says, with status 200, that an answer failed (ggml-org/llama.cpp#16109).
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class EventDecoder:
    """A decoder that takes the body in any pieces and returns events: name ("" for none) and data."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._held = 0
        self._name = ""
        self._after_cr = False
        self._first = True

    @property
    def between(self) -> bool:
        """Return whether nothing is held back, so that the next byte starts an event."""
        return not (self._rest or self._data or self._name or self._after_cr or self._first)

    @property
    def pending(self) -> int:
        """Return the number of bytes that are held back."""
        return len(self._rest) + self._held

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """Return the events that `chunk` completes."""
        if self._after_cr or b"\r" in chunk:
            if self._after_cr and chunk.startswith(b"\n"):
                chunk = chunk[1:]
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines, newline, rest = chunk.rpartition(b"\n")
        found = self._lines(bytes(self._rest) + lines) if newline else []
        if newline:
            self._rest.clear()
        self._rest += rest
        return found

    def flush(self) -> list[tuple[str, bytes]]:
        """Return the events in the last lines, complete or not, after the body has ended."""
        found = self._lines(bytes(self._rest) + b"\n")
        self._rest.clear()
        return found

    def _lines(self, text: bytes) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        if self._first:
            text, self._first = text.removeprefix(_BOM), False
        for line in text.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.strip()
            if not line:
                if self._data:
                    found.append((self._name, b"\n".join(self._data)))
                self._data, self._held, self._name = [], 0, ""
            elif field == b"event":
                self._name = value.decode("latin-1")
            elif field == b"error" and value[:1] == b"{":
                found.append(("error", b'{"error":%b}' % value))
            elif field == b"data" and value[:1] == b"{" and value[-1:] == b"}" and not self._data:
                found.append((self._name, value))
            elif field == b"data":
                self._data.append(value)
                self._held += len(value) + 1
        return found
