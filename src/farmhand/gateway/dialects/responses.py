"""The Responses dialect: its reader, and the body of a Chat request that is made of one.

The gateway keeps no answers, so a request has its whole conversation in `input`.
Source of the shapes: OpenAI's Responses API, as the package `openai` 3.57 types it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farmhand.gateway.carries import ChatOptions, Walk
from farmhand.gateway.dialects import chat
from farmhand.gateway.dialects.building import Conversation, call, offer
from farmhand.gateway.dialects.reading import (
    Found,
    content,
    document,
    kind_of,
    object_at,
    objects,
    role_of,
    text_at,
)
from farmhand.gateway.turn import BadRequest, CannotCarry, Turn

_ROLES = frozenset({"assistant", "developer", "system", "user"})
#: Fields that ask for state at the server.
_STATEFUL = ("background", "conversation", "previous_response_id", "store")
_PLAIN = {"max_output_tokens": "max_tokens", "parallel_tool_calls": "parallel_tool_calls"} | {
    name: name for name in ("temperature", "top_p")
}


def read(body: bytes, headers: Mapping[str, str]) -> Turn:
    """Return the turn in the body of a Responses request. Raise BadRequest, and CannotCarry for state."""
    decoded, fields = document(body)
    Walk().check({name: decoded[name] for name in _STATEFUL if name in decoded}, "responses.request", "")
    found = Found()
    items = items_of(decoded)
    for path, item in items:
        kind = kind_of(item, path, "message")
        if kind == "message":
            role_of(item, _ROLES, path)
            _count(item.get("content"), f"{path}.content", found)
        elif kind == "function_call_output":
            _count(item.get("output"), f"{path}.output", found)
        found.tool_history |= kind not in {"message", "reasoning"}
    for number, tool in enumerate(objects(decoded.get("tools"), "tools")):
        found.offered(kind_of(tool, f"tools[{number}]"), ("function", "custom"))
    form = object_at(object_at(decoded, "text", ""), "format", "text")
    return found.turn(
        "responses",
        decoded,
        fields,
        headers,
        read=("instructions", "input", "tools"),
        limits=("max_output_tokens",),
        schema=form.get("type", "text") != "text",
        prefill=items[-1][1].get("role") == "assistant",
    )


def role_in(item: Mapping[str, Any], path: str) -> str:
    """Return the role of a message. Raise BadRequest."""
    return role_of(item, _ROLES, path)


def items_of(decoded: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the items of the input with their paths. Raise BadRequest if there is none."""
    given = decoded.get("input")
    if isinstance(given, str):
        return [("input", {"type": "message", "role": "user", "content": given})]
    items = objects(given, "input")
    if not items:
        raise BadRequest("input", "there is none")
    return [(f"input[{number}]", item) for number, item in enumerate(items)]


def _count(value: Any, path: str, found: Found) -> None:
    for number, part in enumerate(content(value, path, "input_text")):
        kind = kind_of(part, f"{path}[{number}]")
        if kind == "input_image":
            found.image(part.get("image_url"))
        elif kind not in {"input_text", "output_text", "refusal"}:
            found.documents += 1


def to_chat(turn: Turn, decoded: Mapping[str, Any], options: ChatOptions, walk: Walk) -> dict[str, Any]:
    """Return the body of a Chat request. Raise CannotCarry or BadRequest with the JSON path."""
    carried = {name: decoded[name] for name in walk.fields(decoded, "responses.request", "")}
    told = Conversation(options.mid_system)
    if decoded.get("instructions") is not None:
        told.system(text_at(decoded, "instructions", ""))
    items = items_of(decoded)
    for path, item in items:
        _item(item, path, told, options, walk)
    chat.check_prefill(items[-1][1].get("role"), items[-1][0], options)
    body: dict[str, Any] = {"messages": told.finish()}
    body |= {ours: carried[name] for name, ours in _PLAIN.items() if carried.get(name) is not None}
    tools = _tools(decoded, options, walk)
    if tools:
        body["tools"] = tools
    choice = decoded.get("tool_choice")
    chat.check_choice(choice, "responses.tool_choices", walk)
    if isinstance(choice, dict):
        walk.check(choice, "responses.tool_choice", "tool_choice")
        choice = chat.named(text_at(choice, "name", "tool_choice"), tools)
    if choice is not None:
        body["tool_choice"] = choice
    text = object_at(decoded, "text", "")
    walk.check(text, "responses.text", "text")
    if form := object_at(text, "format", "text"):
        walk.check(form, "responses.format", "text.format")
        kind = chat.check_form(form, "responses.formats", "text.format", options, walk)
        named = {name: value for name, value in form.items() if name != "type" and value is not None}
        body["response_format"] = {"type": kind} | ({"json_schema": named} if kind == "json_schema" else {})
    return body


def _item(item: dict[str, Any], path: str, told: Conversation, options: ChatOptions, walk: Walk) -> None:
    """Add an item to the conversation."""
    kind = kind_of(item, path, "message")
    if not walk.kind(kind, "responses.items", path):
        return
    walk.check(item, f"responses.{kind}", path)
    if kind == "function_call":
        arguments = text_at(item, "arguments", path)
        told.assistant("", [call(text_at(item, "call_id", path), text_at(item, "name", path), arguments)])
    elif kind == "function_call_output":
        parts = _parts(item.get("output"), f"{path}.output", options, walk)
        told.result(text_at(item, "call_id", path), parts)
    else:
        role = role_of(item, _ROLES, path)
        parts = _parts(item.get("content"), f"{path}.content", options, walk)
        if role == "user":
            told.user(parts)
            return
        if any(part["type"] != "text" for part in parts):
            raise CannotCarry(path, f"an image in a message of the role {role}")
        texts = [part["text"] for part in parts]
        if role == "assistant":
            told.assistant("".join(texts), [])
        else:
            told.system("\n\n".join(texts))


def _parts(value: Any, path: str, options: ChatOptions, walk: Walk) -> list[dict[str, Any]]:
    parts = []
    for number, part in enumerate(content(value, path, "input_text")):
        where = f"{path}[{number}]"
        kind = kind_of(part, where)
        walk.kind(kind, "responses.parts", where)
        walk.check(part, f"responses.{kind}", where)
        if kind == "input_image":
            made = chat.image(text_at(part, "image_url", where), where, options)
            if part.get("detail") is not None:
                made["image_url"]["detail"] = part["detail"]
            parts.append(made)
        else:
            parts.append({"type": "text", "text": text_at(part, "refusal" if kind == "refusal" else "text", where)})
    return parts


def _tools(decoded: Mapping[str, Any], options: ChatOptions, walk: Walk) -> list[dict[str, Any]]:
    tools = []
    for number, tool in enumerate(objects(decoded.get("tools"), "tools")):
        path = f"tools[{number}]"
        if chat.offered(kind_of(tool, path), "responses.tools", path, options, walk):
            walk.check(tool, "responses.tool", path)
            name = text_at(tool, "name", path)
            tools.append(offer(name, tool.get("description"), tool.get("parameters"), tool.get("strict")))
    return tools
