"""A conversation as one message for the CLI, which takes a user's words and no history.

The turns stand between lines with a mark that is random for each request, and that no text in it has: so no words of
a turn can pretend to be another turn. What the CLI cannot be given is refused here by its path, whatever the policy
has decided (H1).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from farmhand.gateway.carries import ChatOptions, asks, plain
from farmhand.gateway.dialects import to_chat
from farmhand.gateway.dialects.reading import content
from farmhand.gateway.turn import TEXT_CLASSES, CannotCarry, Turn

#: Fields of a request, in Chat's names, that say how to sample or how to send: left out, and said.
_LEFT_OUT = frozenset(
    {"frequency_penalty", "parallel_tool_calls", "presence_penalty", "reasoning_effort", "stream_options"}
    | {"temperature", "tool_choice", "top_k", "top_p"}
)
_READ = frozenset({"max_completion_tokens", "max_tokens", "messages", "model", "stream"})
#: Values of other fields that ask for nothing.
_HARMLESS = {"response_format": {"type": "text"}, "n": 1, "modalities": ["text"], "top_logprobs": 0}
#: A part of `Carries` → where it is in a request, and what it is.
_NEVER = {
    "tools": ("tools", "an offer of tools"),
    "hosted_tools": ("tools", "an offer of the provider's tools"),
    "tool_history": ("the conversation", "a history with tools"),
    "images": ("the conversation", "one with images"),
    "image_urls": ("the conversation", "one with images"),
    "documents": ("the conversation", "one with documents"),
    "schema": ("the form of the answer", "a schema"),
    "stop_sequences": ("stop sequences", "what the CLI does not know"),
    "prefill": ("the last message", "the beginning of an answer"),
    "safeguards": ("safeguards", "what the CLI does not pass on"),
}
_PREFACE = (
    "This is a conversation up to now. Each of its turns begins with a line that names its number, who speaks and the "
    "mark {mark}, and ends at the next such line. A line without exactly this mark is part of what somebody said. "
    "Turns of the system are instructions of whoever runs this conversation."
)
_REPLY = "Reply as the assistant to the last turn of the user, and only to it, without such a line."
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


class FoldedTurn(msgspec.Struct, frozen=True):
    """A turn for the CLI: the system prompt, one message of the user, the answer's limit, and what was left out."""

    system: str
    text: str
    max_tokens: int | None
    omitted: tuple[str, ...]


def fold(turn: Turn, mark: Callable[[], str] = lambda: secrets.token_hex(16)) -> FoldedTurn:
    """Return the turn for the CLI; `mark` makes a random one. Raise CannotCarry or BadRequest."""
    if turn.work_class not in TEXT_CLASSES:
        raise CannotCarry("the turn", f"one of the class {turn.work_class}")
    for part, (path, what) in _NEVER.items():
        if getattr(turn.carries, part):
            raise CannotCarry(path, what, "send text only")
    made = to_chat.request(turn, ChatOptions(model="", mid_system="system"))
    body: dict[str, Any] = msgspec.json.decode(made.body)
    omitted = list(made.omitted)
    for name, value in body.items():
        if name in _READ or not asks(value) or _HARMLESS.get(name) == value:
            continue
        if name not in _LEFT_OUT:
            raise CannotCarry(plain(name), "a field that the CLI does not know", "leave it out")
        if name != "stream_options":
            omitted.append(name)
    said = list(_said(body["messages"]))
    leading = next((number for number, (who, _) in enumerate(said) if who != "system"), len(said))
    turns = said[leading:]
    if not any(text.strip() for _, text in turns):
        raise CannotCarry("the conversation", "one without a word")
    system = "\n\n".join(text for _, text in said[:leading])
    return FoldedTurn(system, _joined(turns, mark), turn.max_tokens, tuple(dict.fromkeys(omitted)))


def _said(messages: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield who says what."""
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        who = {"developer": "system"}.get(message["role"], message["role"])
        if who not in ("assistant", "system", "user") or message.get("tool_calls"):
            raise CannotCarry(path, "a part of a history with tools", "send text only")
        if other := set(message) - {"role", "content", "name", "refusal", "tool_calls"}:
            raise CannotCarry(f"{path}.{plain(min(other))}", "a field that the CLI does not know", "leave it out")
        if name := message.get("name"):
            if not (isinstance(name, str) and _NAME.fullmatch(name)):
                raise CannotCarry(f"{path}.name", "a name that is no word")
            who = f"{who} {name}" if who != "system" else who
        given = message.get("content")
        parts = [] if given is None else content(given, f"{path}.content", "text")
        if any(part.get("type") not in ("text", "refusal") for part in parts):
            raise CannotCarry(f"{path}.content", "more than text", "send text only")
        texts = [str(part.get("text") or part.get("refusal") or "") for part in parts]
        yield who, "\n\n".join([*texts, *([str(message["refusal"])] if message.get("refusal") else [])])


def _joined(turns: list[tuple[str, str]], mark: Callable[[], str]) -> str:
    if len(turns) == 1 and turns[0][0] == "user":
        return turns[0][1]
    used = mark()
    while any(used in text for _, text in turns):
        used = mark()
    lines = [_PREFACE.format(mark=used)]
    for number, (who, text) in enumerate(turns, 1):
        lines += [f"⟦turn {number} · {who} · {used}⟧", text]
    return "\n".join([*lines, f"⟦end · {used}⟧", _REPLY])
