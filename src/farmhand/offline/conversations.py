"""Conversations that are kept on the workstation, so that the next turn can be sent with all the earlier ones.

    ~/.local/state/farmhand/conversations/     (XDG_STATE_HOME), 0700
        NAME.json                              one conversation, 0600: its model, system prompt, pot and turns

A turn is written only when it has its answer: what fails or is stopped leaves the conversation as it was. The one that
was used last is the one whose file was written last. When there are more than KEPT, the oldest is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from farmhand.core import files
from farmhand.core.decoding import as_name
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError
from farmhand.core.files import xdg
from farmhand.core.keys import redact
from farmhand.core.task import TASK_ID, Attachment, EarlierTurn

#: The most conversations, and the most bytes of one: the pictures and PDFs that one request takes, and its text.
KEPT = 100
MAX_BYTES = 34 * 1024**2


class KeptConversation(msgspec.Struct, kw_only=True):
    """A conversation as in its file. `cost_usd` is the sum of the turns' known costs."""

    name: str
    model: str = ""
    system: str = ""
    pot: str = ""
    cost_usd: Decimal = Decimal(0)
    turns: list[EarlierTurn] = []

    def history(self) -> list[dict[str, Any]]:
        """Return the turns as a task has them on the wire."""
        found: list[dict[str, Any]] = msgspec.to_builtins(self.turns)
        return found

    def add(self, task: dict[str, Any], result: dict[str, Any]) -> None:
        """Add the turn that `task` was, unless its answer is empty: the API would refuse it in the next turn.

        A key that was pasted is not kept: the next turn is sent without it.
        """
        self.model, self.system = task.get("model", ""), redact(task.get("system", ""))
        self.pot = task.get("pot", "")
        answer = redact(str(result.get("text") or ""))
        self.cost_usd += Decimal(str(result.get("cost_usd") or 0))
        if answer.strip():
            given = tuple(msgspec.convert(task.get("files", []), list[Attachment]))
            self.turns.append(EarlierTurn(prompt=redact(task["prompt"]), answer=answer, files=given))


def directory() -> Path:
    """Return where the conversations are."""
    return Path(xdg("XDG_STATE_HOME"), "farmhand", "conversations")


def names() -> list[str]:
    """Return the names of the conversations, the one used last first."""
    return [path.stem for path in reversed(_all())]


def last() -> str:
    """Return the name of the conversation that was used last. Raise UsageError if there is none."""
    found = names()
    if not found:
        hint = "begin one with --conversation NAME, or with --chat"
        raise UsageError("there is no conversation to go on with", hint=hint)
    return found[0]


@contextlib.contextmanager
def opened(name: str) -> Iterator[KeptConversation]:
    """Yield the conversation `name`, a new one if there is none, held against other processes.

    Raise UsageError for a bad name or one in use, NotConfigured for a file that cannot be used.
    """
    if not TASK_ID.fullmatch(as_name(name, "--conversation")):
        raise UsageError(f"--conversation {name!r:.80} does not match {TASK_ID.pattern}")
    where = directory()
    try:
        _make(where)
        descriptor = os.open(where / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(where, error.strerror) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"the conversation {name} is in use by another process", hint="end that first") from None
        yield _read(where / f"{name}.json", name)
    finally:
        os.close(descriptor)


def save(conversation: KeptConversation) -> None:
    """Write the conversation; it is on disk when this returns. Raise FarmhandError."""
    path = directory() / f"{conversation.name}.json"
    data = msgspec.json.encode(conversation)
    if len(data) > MAX_BYTES:
        hint = "begin a new one"
        raise FarmhandError(f"the conversation {conversation.name} is too large to keep this turn", hint=hint)
    try:
        _make(path.parent)  # it may have been removed during a chat
        files.replace(path, data, mode=0o600)
        for old in _all()[:-KEPT]:
            old.unlink(missing_ok=True)
            (old.parent / f".{old.stem}.lock").unlink(missing_ok=True)
    except OSError as error:
        hint = "make room and the directory writable: this turn is not kept"
        raise NotConfigured(f"{path} cannot be written: {error.strerror}", hint=hint) from None


def _make(where: Path) -> None:
    for path in (where.parent, where):  # mkdir gives parents no mode
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _all() -> list[Path]:
    """Return the files of the conversations, the one used last at the end."""
    found = []
    for path in directory().glob("[!.]*.json"):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def _read(path: Path, name: str) -> KeptConversation:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return KeptConversation(name=name)
    except OSError as error:
        raise _unusable(path, error.strerror) from None
    try:
        found = msgspec.json.decode(data, type=KeptConversation)
    except (ValueError, RecursionError):
        raise _unusable(path, "it is no conversation of this version") from None
    found.name = name
    return found


def _unusable(path: Path, why: str | None) -> NotConfigured:
    return NotConfigured(f"{path} cannot be used: {why}", hint="move it away, or use another --conversation")
