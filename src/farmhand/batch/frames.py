"""Messages of `farmhand batch` and the action plugin on a Unix socket: a JSON object and bytes, with their lengths."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTHS = struct.Struct("!II")
MAX_BYTES = 256 * 1024 * 1024


def send(sock: socket.socket, head: dict[str, Any], body: bytes = b"") -> None:
    """Send one message."""
    text = json.dumps(head).encode()
    sock.sendall(_LENGTHS.pack(len(text), len(body)) + text)
    sock.sendall(body)


def receive(sock: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """One message; None when the other side has gone."""
    lengths = _exactly(sock, _LENGTHS.size)
    if lengths is None:
        return None
    head, body = _LENGTHS.unpack(lengths)
    if head + body > MAX_BYTES:
        raise ValueError(f"a message of {head + body} bytes")
    text, rest = _exactly(sock, head), _exactly(sock, body)
    if text is None or rest is None:
        return None
    value = json.loads(text)
    return (value, rest) if isinstance(value, dict) else None


def _exactly(sock: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        piece = sock.recv(min(length - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)
