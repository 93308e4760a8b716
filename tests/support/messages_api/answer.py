"""What the model says: scripted, forced by the request, or a deterministic echo of the prompt."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

from tests.support.messages_api.errors import ApiError
from tests.support.messages_api.instance import NoInstanceError, smallest
from tests.support.messages_api.rules import Rules, Step, ToolUse, Turn, read_turn
from tests.support.messages_api.usage import tokens
from tests.support.messages_api.validate import Request

#: Tokens of thinking that an answer with thinking has; requests with a smaller `max_tokens` get none.
THINKING_TOKENS = 24
THINKING_FROM = 1024
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def new_id(prefix: str, length: int = 22) -> str:
    """A fresh id in the API's form."""
    return prefix + "".join(_ALPHABET[b % len(_ALPHABET)] for b in secrets.token_bytes(length))


def echo(prompt: str) -> str:
    """The default answer to a prompt; tests can compute it."""
    raw = prompt.encode("utf-8", "surrogatepass")
    start = " ".join(prompt.split())[:200]
    return f"Loopback answer to {len(raw)} bytes (sha256 {hashlib.sha256(raw).hexdigest()[:12]}): {start}"


def compose(request: Request, rules: Rules) -> dict[str, Any]:
    """The message without its input usage: content, stop_reason, output tokens."""
    turn = read_turn(request.body["messages"])
    names = [tool["name"] for tool in request.tools]
    choice = (request.body.get("tool_choice") or {}).get("type")
    step = rules.step(turn, request.model.id, [] if choice == "none" else names)
    forced = request.forced_tool
    if forced is not None and (step is None or forced["name"] not in [use.name for use in step.tool_uses]):
        step = Step(tool_use=ToolUse(name=forced["name"]))
    if step is None:
        step = _default(request, turn, names)
    return _message(request, _blocks(request, step, turn))


def _default(request: Request, turn: Turn, names: list[str]) -> Step:
    if request.schema is not None:
        return Step(text=json.dumps(_instance(request.schema)))
    if "StructuredOutput" in names and not turn.answers:
        # What a model does that the claude CLI has told to answer through this tool.
        return Step(tool_use=ToolUse(name="StructuredOutput"))
    return Step(text="{tool_result}" if turn.tool_result else echo(turn.prompt))


def _instance(schema: dict[str, Any]) -> Any:
    try:
        return smallest(schema)
    except NoInstanceError as error:
        raise ApiError(400, f"no instance of the schema was found: {error}") from error


def _blocks(request: Request, step: Step, turn: Turn) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if step.text:
        text = step.text.replace("{tool_result}", turn.tool_result) or "(empty tool result)"
        blocks.append({"type": "text", "text": text})
    for use in step.tool_uses:
        tool = next(t for t in request.tools if t["name"] == use.name)
        given = use.input if use.input is not None else _instance(tool.get("input_schema", {"type": "object"}))
        blocks.append({"type": "tool_use", "id": new_id("toolu_01"), "name": use.name, "input": given})
    return blocks


def _message(request: Request, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    limit = int(request.body["max_tokens"])
    content: list[dict[str, Any]] = []
    spent = thought = 0
    if request.thinking and limit >= THINKING_FROM:
        content.append(_thinking(request))
        spent = thought = THINKING_TOKENS
    stop, sequence = "end_turn", None
    for block in blocks:
        fitted, cost, stop, sequence = _fitted(block, request, limit - spent)
        spent += cost
        if fitted is not None:
            content.append(fitted)
        if stop in ("max_tokens", "stop_sequence"):
            break
    usage: dict[str, Any] = {"output_tokens": spent}
    if request.thinking:
        usage["output_tokens_details"] = {"thinking_tokens": thought}
    return {"content": content, "stop_reason": stop, "stop_sequence": sequence, "usage": usage}


def _thinking(request: Request) -> dict[str, Any]:
    config = request.body.get("thinking") or {}
    default = "omitted" if request.model.thinks else "summarized"
    shown = config.get("display", default) == "summarized"
    return {
        "type": "thinking",
        "thinking": "The prompt is short and the answer is plain." if shown else "",
        "signature": "Eq" + secrets.token_urlsafe(96),
    }


def _fitted(block: dict[str, Any], request: Request, room: int) -> tuple[dict[str, Any] | None, int, str, str | None]:
    """The block cut to `room` tokens and to the stop sequences; its cost, the stop reason, the sequence."""
    model = request.model
    if block["type"] == "tool_use":
        cost = tokens(len(json.dumps(block["input"]).encode()), model) + 12
        return (block, cost, "tool_use", None) if cost <= room else ({**block, "input": {}}, room, "max_tokens", None)
    text: str = block["text"]
    stop, sequence = "end_turn", None
    found = [(text.find(s), s) for s in request.body.get("stop_sequences") or [] if s in text]
    if found:
        at, sequence = min(found)
        text, stop = text[:at], "stop_sequence"
    cost = tokens(len(text.encode("utf-8", "replace")), model) + 1
    if cost > room:
        kept = text.encode("utf-8", "replace")[: max(0, int((room - 1) * model.token_bytes))]
        text, cost, stop, sequence = kept.decode("utf-8", "ignore"), room, "max_tokens", None
    return ({"type": "text", "text": text} if text else None), cost, stop, sequence
