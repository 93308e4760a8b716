"""The agent's figures for Prometheus: `GET /metrics`, and `jada-agent metrics`, which prints them or keeps a file."""

from __future__ import annotations

import contextlib
import sys
from http.client import HTTPException
from pathlib import Path

from farmhand.core import files
from farmhand.core.errors import NotConfigured, WireError
from farmhand.wire import message
from farmhand.wire.client import Client
from farmhand.wire.decode import MAX_SMALL_BYTES
from farmhand.wire.transport import UnixTransport


def read_text(client: Client) -> str:
    """Ask for the figures and return them as they came. Raise WireError."""
    name = client.transport.name
    try:
        response = client.request("GET", "/metrics")
        text = response.read_all(MAX_SMALL_BYTES).decode()
    except (ValueError, OSError, HTTPException) as error:
        raise message.bad_answer(name, f"metrics that cannot be read: {type(error).__name__}") from None
    if response.status != 200:
        raise message.bad_answer(name, f"status {response.status} for its metrics")
    message.check_wire(response.headers, name)
    if response.will_close:
        client.close()
    return text


def main(socket: str, out: Path | None) -> int:
    """Print the figures, or put them into the file `out`; no old ones stay in it. Raise WireError, NotConfigured."""
    try:
        with Client(UnixTransport(socket)) as client:
            text = read_text(client)
        if out is None:
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            files.replace(out, text.encode(), mode=0o644)
    except WireError:
        if out is not None:
            with contextlib.suppress(OSError):
                out.unlink()
        raise
    except OSError as error:
        raise NotConfigured(f"{out or 'stdout'} cannot be written: {error.strerror}") from None
    return 0
