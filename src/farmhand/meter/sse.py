"""Server-sent events, split as the specification says and a little beyond it, since gateways rewrite streams.

Source: the HTML standard, "Server-sent events": lines end with LF, CRLF or CR, a byte order mark may come first, and
several `data` lines make one event. Beyond it: a `data` line that is a whole JSON object is an event at once, so that
none is lost where the blank line after it, or the end of the last line, is missing.
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class EventDecoder:
    """Feed it the body in any pieces; it gives back events: their name ("" for none) and their data.

    `pending` is how many bytes it holds back.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._held = 0
        self._name = ""
        self._after_cr = False
        self._first = True

    @property
    def between(self) -> bool:
        """Whether nothing is held back: what comes next begins an event."""
        return not (self._rest or self._data or self._name or self._after_cr or self._first)

    @property
    def pending(self) -> int:
        """Bytes that no event has come of yet."""
        return len(self._rest) + self._held

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """The events that are complete with `chunk`."""
        if self._after_cr or b"\r" in chunk:
            if self._after_cr and chunk.startswith(b"\n"):
                chunk = chunk[1:]
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines, newline, chunk = chunk.rpartition(b"\n")
        found: list[tuple[str, bytes]] = []
        if newline:
            self._lines(bytes(self._rest) + lines, found)
            self._rest.clear()
        self._rest += chunk
        return found

    def flush(self) -> list[tuple[str, bytes]]:
        """The body has ended: what its last lines make, ended or not."""
        found: list[tuple[str, bytes]] = []
        self._lines(bytes(self._rest) + b"\n", found)
        self._rest.clear()
        return found

    def _lines(self, text: bytes, found: list[tuple[str, bytes]]) -> None:
        if self._first:
            text, self._first = text.removeprefix(_BOM), False
        for line in text.split(b"\n"):
            if not line:
                if self._data:
                    found.append((self._name, b"\n".join(self._data)))
                    self._data, self._held = [], 0
                self._name = ""
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                data = value.strip()
                if data[:1] == b"{" and data[-1:] == b"}" and not self._data:
                    found.append((self._name, data))
                else:
                    self._data.append(data)
                    self._held += len(data) + 1
            elif field == b"event":
                self._name = value.strip().decode("latin-1")
