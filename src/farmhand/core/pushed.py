"""The note of what pushes a host's metrics: when CloudWatch last took them, and why not since. The agent shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from farmhand.core.files import replace
from farmhand.core.keys import redact
from farmhand.core.typed import ready

#: Bytes; a note has about 100.
_MOST = 16 * 1024
#: Characters of a reason.
_REASON = 400
#: After this time without a success the push has failed. Seconds; it is tried every minute.
LATE_S = 900.0


class PushNote(msgspec.Struct, frozen=True):
    """`at` is the time (Unix seconds) of the last success, None for never. `problem` is one line, "" for none."""

    at: float | None = None
    problem: str = ""


def read_note(path: str) -> PushNote:
    """Return the note in a file. Never raise: what cannot be read is the note's problem."""
    try:
        with Path(path).open("rb") as file:
            note = msgspec.json.decode(file.read(_MOST), type=ready(PushNote))
    except FileNotFoundError:
        return PushNote(problem="nothing was pushed yet")
    except (OSError, ValueError) as error:
        return PushNote(problem=f"{path} cannot be read: {type(error).__name__}")
    return PushNote(note.at if note.at is not None and 0 <= note.at < 1e10 else None, _line(note.problem))


def write_note(path: Path, note: PushNote) -> None:
    """Write the note, readable by everybody. Raise OSError."""
    replace(path, msgspec.json.encode(PushNote(note.at, _line(note.problem))), mode=0o644)


def trouble(status: Mapping[str, Any]) -> str:
    """Return why the push of a host's metrics has failed, "" if it has not. `status` is its `GET /v1/status`."""
    note = status.get("cloudwatch")
    if not note:
        return ""
    at, now = note.get("at"), status.get("time")
    why = note.get("problem") or "see the journal of jada-cloudwatch there"
    if at is None or now is None:
        return f"no metrics have reached CloudWatch yet: {why}"
    return f"no metrics have reached CloudWatch for {(now - at) / 60:.0f} minutes: {why}" if now - at > LATE_S else ""


def _line(text: str) -> str:
    return redact(" ".join(text.split()))[:_REASON]
