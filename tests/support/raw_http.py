"""Requests byte for byte, for those that no client library would send."""

from __future__ import annotations

import asyncio
from typing import NamedTuple


class RawAnswer(NamedTuple):
    """An answer: its status (0: the connection was closed without one), its headers in lower case, its body."""

    status: int
    headers: dict[str, str]
    body: bytes


def head(method: str, target: str, *headers: str) -> bytes:
    """The head of a request; a header is a whole line."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", *headers, "", ""]).encode("latin-1")


def parsed(answer: bytes) -> RawAnswer:
    """The parts of an answer."""
    start, _, body = answer.partition(b"\r\n\r\n")
    lines = start.decode("latin-1").split("\r\n")
    if not lines[0]:
        return RawAnswer(0, {}, b"")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return RawAnswer(int(lines[0].split()[1]), headers, body)


async def send(port: int, request: bytes) -> RawAnswer:
    """Send bytes and return the first answer, or what came until the server closed the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        answer = bytearray()
        while b"\r\n\r\n" not in answer and (piece := await reader.read(65536)):
            answer += piece
        found = parsed(bytes(answer))
        rest = int(found.headers.get("content-length", "0")) - len(found.body)
        while rest > 0 and (piece := await reader.read(rest)):
            answer += piece
            rest -= len(piece)
        return parsed(bytes(answer))
    except ConnectionError:
        return RawAnswer(0, {}, b"")
    finally:
        writer.close()
