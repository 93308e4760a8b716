"""Sessions: which backend a conversation had, and whether it may leave it at this turn.

A conversation that changes its model loses the server's prompt cache and the model's thinking. So it stays with a
backend for as long as the policy allows, up to an hour without a turn.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

import msgspec

from farmhand.gateway.turn import Decision, Facts, Turn

#: Seconds without a turn after which a session is forgotten, and how many are remembered.
IDLE_S = 3600.0
MOST = 4096
#: Headers in which clients name their session: Claude Code, Codex, pi, opencode.
HEADERS = ("x-claude-code-session-id", "session-id", "session_id", "x-session-id")
#: Ids are hashed with it, so that a hash says nothing about an id, and ends with the process.
_SALT = os.urandom(16)


class _UserOfMetadata(msgspec.Struct):
    user_id: str = ""


class _SessionOfUser(msgspec.Struct):
    session_id: str = ""


class _PartType(msgspec.Struct):
    type: str = ""


class _LastMessage(msgspec.Struct):
    """The last part of a conversation in any dialect; an item of Responses that is no message has a type only."""

    role: str = ""
    type: str = "message"
    content: str | list[_PartType] | None = None


_text = msgspec.json.Decoder(str)
_user = msgspec.json.Decoder(_UserOfMetadata)
_session = msgspec.json.Decoder(_SessionOfUser)
_items = msgspec.json.Decoder(list[msgspec.Raw] | str)
_message = msgspec.json.Decoder(_LastMessage)


def key(turn: Turn) -> str:
    """Return a hash of the client's session id; "" if it names none."""
    named = next((value for name in HEADERS if (value := turn.headers.get(name))), "") or _of_body(turn.fields)
    return blake2b(named.encode("utf-8", "surrogatepass"), digest_size=8, key=_SALT).hexdigest() if named else ""


def _of_body(fields: dict[str, msgspec.Raw]) -> str:
    """Return the session that a body names, as Codex and pi (`prompt_cache_key`) and Claude Code (`metadata`) do."""
    try:
        if "prompt_cache_key" in fields:
            return _text.decode(fields["prompt_cache_key"])
        user = _user.decode(fields["metadata"]).user_id if "metadata" in fields else ""
    except msgspec.DecodeError:
        return ""
    try:
        return _session.decode(user).session_id
    except msgspec.DecodeError:
        # The form of older versions: user_…_account_…_session_ID.
        return user.rpartition("_session_")[2] if "_session_" in user else ""


def own_words(turn: Turn) -> bool:
    """Return whether the last message is the user's own words: no tool's result, and not the assistant's.

    A system message after it is the harness's own and does not count.
    """
    field = turn.fields.get("input" if turn.dialect == "responses" else "messages")
    if field is None:
        return False
    try:
        items = _items.decode(field)
        if isinstance(items, str):
            return True
        for item in reversed(items):
            message = _message.decode(item)
            if message.role not in ("system", "developer"):
                break
        else:
            return True
    except msgspec.DecodeError:
        return False
    parts = message.content if isinstance(message.content, list) else []
    is_result = any(part.type == "tool_result" for part in parts)
    return message.role == "user" and message.type == "message" and not is_result


class Sessions:
    """The last backend of each session: `MOST` sessions at the most, each for `IDLE_S` after its last turn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Session → (backend, time of the last turn in seconds), the longest idle first.
        self._last: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._last)

    def last(self, facts: Facts) -> str:
        """Return the backend that the turn's session had, "" if it had none or is forgotten."""
        backend, at = self._last.get(facts.session, ("", 0.0))
        return backend if self._clock() - at < IDLE_S else ""

    def keep(self, decision: Decision) -> None:
        """Remember the backend of a decision. A harness's request for itself is no part of the conversation."""
        session = decision.facts.session
        if not session or decision.facts.background:
            return
        if decision.backend:
            self._last[session] = (decision.backend, self._clock())
            self._last.move_to_end(session)
        now = self._clock()
        while self._last and (len(self._last) > MOST or now - next(iter(self._last.values()))[1] >= IDLE_S):
            self._last.popitem(last=False)
