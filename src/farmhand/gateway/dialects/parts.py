"""The parts of an answer, between the reader of a local server's stream and the writers of the client's dialects."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from farmhand.gateway.backends import BackendError

#: The most tokens that a count can be: what JSON's numbers hold exactly, and the ledger's do.
MOST_TOKENS = 2**53
#: Why an answer ended, in the words of the Messages API.
Stop = Literal["end_turn", "max_tokens", "refusal", "stop_sequence", "tool_use"]


class ChatUsage(msgspec.Struct, frozen=True):
    """Tokens as a local server counted them; `cached` of them were in its cache, and `read` were not."""

    read: int = 0
    cached: int = 0
    written: int = 0


def usage_of(value: Any) -> ChatUsage | None:
    """Return the usage in a Chat answer; None if there is none, or not in whole numbers of tokens."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt, written, cached = value.get("prompt_tokens"), value.get("completion_tokens") or 0, cached or 0
    if not (isinstance(prompt, int) and isinstance(written, int) and isinstance(cached, int)):
        return None
    if max(prompt, written, cached) > MOST_TOKENS:
        return None
    cached = min(max(cached, 0), max(prompt, 0))
    return ChatUsage(max(prompt, 0) - cached, cached, max(written, 0))


class AnswerPart:
    """A part of an answer: text, thinking, or a tool call, whose text is its arguments."""

    def __init__(self, kind: Literal["text", "thinking", "tool"], ident: str = "", name: str = "") -> None:
        self.kind = kind
        self.ident = ident
        self.name = name
        #: The id as the server gave it, if it gave one.
        self.given = ident
        self.opened = self.ended = False
        #: What the writer has, and what it does not have yet.
        self._given: list[str] = []
        self._waiting: list[str] = []
        self._complete = False

    @property
    def text(self) -> str:
        """Return the text so far."""
        return "".join([*self._given, *self._waiting])

    def add(self, piece: str) -> None:
        """Append to the text."""
        if piece:
            self._waiting.append(piece)

    def fresh(self) -> str:
        """Return the text that the writer does not have yet. Arguments wait until they are seen to be an object."""
        found = "".join(self._waiting)
        if self.kind == "tool" and not self._given:
            found = found.lstrip()
            if not found.startswith("{"):
                return ""
        self._waiting.clear()
        if found:
            self._given.append(found)
        return found

    def said(self, writer: Writer) -> list[bytes]:
        """Return what is new of it, as `writer` writes that: its beginning, if it has none, and more of its text."""
        out = []
        if not self.opened:
            self.opened = True
            out.append(writer.open(self))
        if fresh := self.fresh():
            out.append(writer.add(self, fresh))
        return out

    def complete(self) -> bool:
        """Return whether nothing can follow once another part has begun: arguments must be a whole JSON object."""
        if self.kind == "tool" and not self._complete and (self._waiting or self._given):
            last = (self._waiting or self._given)[-1]
            self._complete = last.rstrip().endswith("}") and is_object(self.text)
        return self.kind != "tool" or self._complete

    def settle(self) -> str:
        """Return what is missing of arguments at the end: `{}` if none came. Raise ValueError if they are no object.

        Some servers write `null` for none, and some an object within a string.
        """
        if self.kind != "tool" or self._given:
            return ""
        text = self.text.strip()
        value = msgspec.json.decode(text) if text else None
        if isinstance(value, str):
            value = msgspec.json.decode(value) if value else None
        if not isinstance(value, dict | None):
            raise ValueError("they are no object")
        self._waiting, self._given = [], [msgspec.json.encode(value or {}).decode()]
        return self._given[0]


def is_object(text: str | bytes) -> bool:
    """Return whether a text is a whole JSON object."""
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (ValueError, RecursionError):
        return False


class Writer(Protocol):
    """Writes an answer in the client's dialect: each part is opened once, and closed before the next one opens."""

    def start(self, model: str) -> bytes:
        """Begin the answer."""

    def open(self, part: AnswerPart) -> bytes:
        """Begin a part."""

    def add(self, part: AnswerPart, text: str) -> bytes:
        """Go on with the open part."""

    def close(self, part: AnswerPart) -> bytes:
        """End the open part."""

    def finish(self, stop: Stop, sequence: str | None, usage: ChatUsage) -> bytes:
        """End the answer."""

    def fail(self, error: BackendError) -> bytes:
        """End the answer with an error."""

    def ping(self) -> bytes:
        """Return what keeps a silent stream alive, between two events."""
