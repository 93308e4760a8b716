"""The names of a batch and of its lines."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path

from farmhand.core.ids import suffixed
from farmhand.core.keys import redact


def name_after(called: str) -> str:
    """Return a new name for a batch of the file `called`: `people-1f2e3d4c`; without a usable name `b1f2e3d4c5a6b`."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(called).stem).strip("._-")[:40].rstrip("._-")
    if not stem or redact(called) != called:
        return "b" + secrets.token_hex(6)
    return f"{stem}-{secrets.token_hex(4)}"


def id_of(batch: str, n: int, body: bytes) -> str:
    """Return the id for a line without one; it identifies the content of its task."""
    return suffixed(batch, f"-{n}-{hashlib.sha256(body).hexdigest()[:8]}")
