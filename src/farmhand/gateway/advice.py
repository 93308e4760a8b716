"""The answer in place of spending: what a client is told when no backend takes its turn, in its own dialect.

The statuses are those with which real clients show the text at once and ask once: 402 in Messages, 400 in Chat
Completions and Responses (measured with claude 2.1.332, codex 0.171, pi 0.73 and 1.6, opencode 1.18, aider 0.86). Every
text is one line of `MOST` characters at the most.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from farmhand.gateway.policy import CANNOT_CARRY, LOCAL
from farmhand.gateway.turn import CannotCarry, Decision, Dialect, Facts, Reason, Refusal, Turn

#: Claude Code prints the text behind `API Error: 402`.
MOST = 400
DEFERRED = "farmhand_deferred"
NOT_CARRIED = "farmhand_cannot_carry"
TOO_LONG = "context_length_exceeded"
#: The codes of a budget without room for a turn.
OF_BUDGET = frozenset({"budget_turn", "budget_day", "budget_allowed", "budget_label"})
_ALLOW = "farmhand gateway allow metered --for 30m --max-usd 1"


class OwnAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the gateway itself."""

    status: int
    headers: dict[str, str]
    body: bytes


def answer(decision: Decision, turn: Turn, mode: str = "error") -> OwnAnswer:
    """Return the answer to a turn that no backend takes. With the mode `message` advice is an ordinary message.

    A client that can help itself gets what it acts on: it leaves `safeguards` out, or makes the conversation shorter.
    """
    codes = {refusal.reason.code: refusal.reason for refusal in reversed(decision.refusals)}
    if "safeguards" in codes:
        return _error(decision, turn.dialect, "safeguards: this backend does not run them", "unsupported")
    if too_long := codes.get("outgrown"):
        return _error(decision, turn.dialect, f"prompt is too long: {too_long.words}", TOO_LONG)
    if CANNOT_CARRY & codes.keys():
        return _error(decision, turn.dialect, cannot_carry_text(decision), NOT_CARRIED)
    if mode == "message":
        return _message(decision, turn, text(decision))
    if turn.dialect == "messages":
        return _error(decision, turn.dialect, text(decision), DEFERRED, status=402, kind="billing_error")
    return _error(decision, turn.dialect, text(decision), DEFERRED)


def ask_for_less(decision: Decision, turn: Turn, most: int) -> OwnAnswer:
    """Return the answer to a turn whose limit of output alone is too dear: Claude Code asks again for `most` tokens.

    It knows the message by its words up to `output tokens for` [seen in 2.1.330].
    """
    what = f"max_tokens: {turn.max_tokens} > {most}, which is the maximum allowed number of output tokens"
    return _error(
        decision, turn.dialect, f"{what} for a turn within the gateway's limits ({decision.id})", "max_tokens"
    )


def not_carried(decision: Decision, turn: Turn, lost: CannotCarry) -> OwnAnswer:
    """Return the answer to a turn of which a backend cannot be given a part, with the part's place."""
    return _error(decision, turn.dialect, cannot_carry_text(decision, lost), NOT_CARRIED)


def _undone(decision: Decision, reason: Reason) -> Decision:
    refusals = (*decision.refusals, Refusal(backend=decision.backend, reason=reason))
    return msgspec.structs.replace(decision, backend="", residency=None, refusals=refusals)


#: What cannot carry a part of a turn, for the person who reads it; a local server is given Chat Completions.
_CARRIERS = {
    "subscription": "the CLI of your plan is not given",
    "metered": "the Messages API cannot carry",
}


def text(decision: Decision, reason: Reason | None = None) -> str:
    """Return why nobody took the turn, each backend's reason, and what to do: one line.

    `reason` is why the chosen backend does not take it after all.
    """
    decision = decision if reason is None else _undone(decision, reason)
    start = f"Farmhand kept this turn from being paid for. {_described(decision.facts)}."
    end = f"{_remedy(decision)} ({decision.id})"
    reasons = [f"{_shown(refusal.backend)}: {_line(refusal.reason.words)}." for refusal in decision.refusals]
    return _fitted(start, reasons, end)


def cannot_carry_text(decision: Decision, lost: CannotCarry | None = None) -> str:
    """Return which part cannot be passed on, and what to do: one line."""
    start = "Farmhand cannot pass this on without losing something:"
    refused = [refusal for refusal in decision.refusals if refusal.reason.code in CANNOT_CARRY]
    backend = _shown(decision.backend or (refused[0].backend if refused else "local"))
    hint = (lost.hint if lost is not None else "") or "send it as text"
    end = f"{hint[:1].upper()}{hint[1:]}, or allow a backend that takes it. ({decision.id})"
    if lost is not None:
        by = _CARRIERS.get(backend, "chat completions cannot carry")
        where = f"{lost.path[:120]} is {_line(lost.what)}, which {by} ({backend})."
        return _fitted(start, [where], end)
    return _fitted(start, [f"{_shown(one.backend)}: {_line(one.reason.words)}." for one in refused], end)


def _described(facts: Facts) -> str:
    """Return `agent turn, 12 tools, about 16,800 tokens`."""
    tokens = round(facts.tokens, -2) if facts.tokens >= 1000 else facts.tokens
    counts = ((facts.carries.tools, "tool"), (facts.carries.images, "image"), (facts.carries.documents, "document"))
    parts = [f"{count} {name}{'s' * (count > 1)}" for count, name in counts if count]
    kind = "background" if facts.background else facts.work_class
    return ", ".join([f"{kind} turn", *parts, f"about {tokens:,} tokens"])


def _remedy(decision: Decision) -> str:
    """Return what the operator can do now. A command is named only if it would help."""
    codes = {(refusal.backend.startswith("local"), refusal.reason.code) for refusal in decision.refusals}
    first = "Start the local server" if (True, "down") in codes else ""
    if (True, "none") in codes:
        first = "Set up a local server in gateway.toml"
    if (False, "shut") in codes:
        allow = _ALLOW + (f" --class {decision.facts.work_class}" if decision.facts.work_class == "agent" else "")
        return f"{first}, or allow it: {allow}." if first else f"Allow it: {allow}."
    explain = f"farmhand gateway explain {decision.id}"
    return f"{first}, or see why: {explain}." if first else f"See why: {explain}."


def _shown(backend: str) -> str:
    return backend.replace(LOCAL, "local ", 1) if backend.startswith(LOCAL) else backend


def _line(words: str) -> str:
    """Return words on one line."""
    return " ".join(words.split()).rstrip(".")


def _fitted(start: str, parts: list[str], end: str) -> str:
    """Return the parts between start and end, the last of them left out or cut where there are too many."""
    room, kept = MOST - len(start) - len(end) - 2, list(parts)
    while kept and len(said := " ".join([*kept, *_more(len(parts) - len(kept))])) > room:
        if len(kept) == 1:
            longest = room - len(said) + len(kept[0])
            kept[0] = f"{kept[0][: longest - 2]}…."
            break
        kept.pop()
    return " ".join([start, *kept, *_more(len(parts) - len(kept)), end])


def _more(number: int) -> list[str]:
    return [f"{number} more."] if number else []


def _error(
    decision: Decision,
    dialect: Dialect,
    message: str,
    code: str,
    *,
    status: int = 400,
    kind: str = "invalid_request_error",
) -> OwnAnswer:
    error: dict[str, Any] = {"type": kind, "message": message}
    document: dict[str, Any] = {"type": "error", "error": error}
    if dialect != "messages":
        document = {"error": error | {"param": None, "code": code}}
    return _answer(decision, "application/json", msgspec.json.encode(document), status)


def _answer(decision: Decision, content_type: str, body: bytes, status: int = 200) -> OwnAnswer:
    headers = {"content-type": content_type, "x-farmhand-decision": decision.id, "x-farmhand-backend": "advice"}
    return OwnAnswer(status=status, headers=headers, body=body)


def _message(decision: Decision, turn: Turn, said: str) -> OwnAnswer:
    """Return advice as a message of the assistant, plain or streamed, with no tokens used."""
    whole, events = _FORMS[turn.dialect](decision.id, turn.model, said)
    if not turn.streamed:
        return _answer(decision, "application/json", msgspec.json.encode(whole))
    return _answer(decision, "text/event-stream", b"".join(_sent(turn.dialect, events)))


def _sent(dialect: Dialect, events: list[dict[str, Any]]) -> Iterator[bytes]:
    for event in events:
        if dialect != "chat":
            yield b"event: %s\n" % event["type"].encode()
        yield b"data: %s\n\n" % msgspec.json.encode(event)
    if dialect == "chat":
        yield b"data: [DONE]\n\n"


def _in_messages(id: str, model: str, said: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # noqa: A002
    usage = {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    base = {"id": f"msg_{id}", "type": "message", "role": "assistant", "model": model, "stop_sequence": None}
    block = {"type": "text", "text": said}
    whole = base | {"content": [block], "stop_reason": "end_turn", "usage": usage}
    return whole, [
        {"type": "message_start", "message": base | {"content": [], "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": block | {"text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 0},
        },
        {"type": "message_stop"},
    ]


def _in_chat(id: str, model: str, said: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # noqa: A002
    base = {"id": f"chatcmpl-{id}", "created": int(time.time()), "model": model}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    message = {"role": "assistant", "content": said}
    chosen = {"index": 0, "logprobs": None}
    chunk = base | {"object": "chat.completion.chunk"}
    whole = base | {
        "object": "chat.completion",
        "choices": [chosen | {"message": message | {"refusal": None}, "finish_reason": "stop"}],
        "usage": usage,
    }
    return whole, [
        chunk | {"choices": [chosen | {"delta": message, "finish_reason": None}]},
        chunk | {"choices": [chosen | {"delta": {}, "finish_reason": "stop"}], "usage": usage},
    ]


def _in_responses(id: str, model: str, said: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # noqa: A002
    item = {"id": f"msg_{id}", "type": "message", "role": "assistant"}
    part = {"type": "output_text", "annotations": [], "logprobs": []}
    usage = {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }
    base = {
        "id": f"resp_{id}",
        "object": "response",
        "created_at": int(time.time()),
        "model": model,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
    }
    full_part = part | {"text": said}
    done = item | {"status": "completed", "content": [full_part]}
    whole = base | {"status": "completed", "output": [done], "usage": usage}
    begun = base | {"status": "in_progress", "output": [], "usage": None}
    at: dict[str, Any] = {"output_index": 0, "item_id": item["id"], "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": item | {"status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", "part": part | {"text": ""}} | at,
        {"type": "response.output_text.delta", "delta": said, "logprobs": []} | at,
        {"type": "response.output_text.done", "text": said, "logprobs": []} | at,
        {"type": "response.content_part.done", "part": full_part} | at,
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": whole},
    ]
    return whole, [event | {"sequence_number": number} for number, event in enumerate(events)]


_FORMS = {"messages": _in_messages, "chat": _in_chat, "responses": _in_responses}
