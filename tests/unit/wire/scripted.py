"""An agent that says exactly what a test wants, byte for byte: for answers that the real one never gives."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

from farmhand.core.errors import WireError
from farmhand.wire.transport import Stream

STATUS = {"version": "9.9", "wire": 1}


def answer(body: Any, status: int = 200, *, wire: str | None = "1", close: bool = False) -> bytes:
    """One HTTP answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", "X-Farmhand-Agent: 9.9"]
    if wire is not None:
        head.append(f"X-Farmhand-Wire: {wire}")
    if close:
        head.append("Connection: close")
    return ("\r\n".join(head) + "\r\n\r\n").encode() + data


def events(*items: Any, end: bool = True) -> bytes:
    """An answer of events, one chunk each; without `end` the line breaks after the last one."""
    chunks = [json.dumps(item).encode() + b"\n" for item in items]
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Farmhand-Wire: 1\r\n\r\n"
    return head + body + (b"0\r\n\r\n" if end else b"")


class ScriptedStream(Stream):
    """One connection: reads requests and sends the scripted answers in their order; after the last it hangs up."""

    def __init__(self, answers: list[bytes], requests: list[bytes], reason: WireError | None) -> None:
        ours, self._far = socket.socketpair()
        super().__init__(ours)
        self._reason = reason
        self._thread = threading.Thread(target=self._serve, args=(answers, requests), daemon=True)
        self._thread.start()

    def _serve(self, answers: list[bytes], requests: list[bytes]) -> None:
        with self._far, self._far.makefile("rb") as incoming:
            for raw in answers:
                request = read_request(incoming)
                if not request:
                    return
                requests.append(request)
                self._far.sendall(raw)

    def failure(self) -> WireError | None:
        return self._reason

    def close(self) -> None:
        super().close()
        self._thread.join(timeout=120)


def read_request(incoming: Any) -> bytes:
    """One request, head and body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = incoming.readline()
        if not line:
            return b""
        head += line
    length = next((int(v.split(b":")[1]) for v in head.lower().split(b"\r\n") if v.startswith(b"content-length")), 0)
    return bytes(head + incoming.read(length))


class Scripted:
    """A transport whose connections follow scripts: `open` takes the next one, and greets as an agent does."""

    name = "scripted"
    connect_timeout_s = 1.0

    def __init__(self, *scripts: list[bytes], greet: bool = True, reason: WireError | None = None) -> None:
        self.scripts = list(scripts)
        self.requests: list[bytes] = []
        self._greet = greet
        self._reason = reason

    def open(self) -> Stream:
        if not self.scripts:
            raise WireError("unreachable", "no more connections")
        script = self.scripts.pop(0)
        return ScriptedStream([answer(STATUS), *script] if self._greet else script, self.requests, self._reason)

    def renew(self) -> bool:
        return False
