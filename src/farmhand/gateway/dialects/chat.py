"""The Chat Completions dialect: its reader, and its request for a local server, which speaks the same.

Source of the shapes: OpenAI's Chat Completions API, as the package `openai` 3.57 types it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farmhand.gateway.carries import ChatOptions, Walk, plain
from farmhand.gateway.dialects.reading import (
    Found,
    content,
    document,
    kind_of,
    object_at,
    objects,
    strings,
    text_at,
)
from farmhand.gateway.turn import BadRequest, CannotCarry, Turn


def read(body: bytes, headers: Mapping[str, str]) -> Turn:
    """Return the turn in the body of a Chat request. Raise BadRequest with the JSON path."""
    decoded, fields = document(body)
    found = Found()
    messages = objects(decoded.get("messages"), "messages")
    if not messages:
        raise BadRequest("messages", "there is none")
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        role = text_at(message, "role", path)
        found.tool_history |= role in {"tool", "function"} or bool(message.get("tool_calls"))
        found.tool_history |= bool(message.get("function_call"))
        for at, part in enumerate(content(message.get("content"), f"{path}.content", "text")):
            where = f"{path}.content[{at}]"
            kind = kind_of(part, where)
            if kind == "image_url":
                found.image(object_at(part, "image_url", where).get("url"))
            elif kind not in {"text", "refusal"}:
                found.documents += 1
    for number, tool in enumerate(objects(decoded.get("tools"), "tools")):
        found.offered(kind_of(tool, f"tools[{number}]"), ("function", "custom"))
    found.tools += len(objects(decoded.get("functions"), "functions"))
    if decoded.get("web_search_options") is not None:
        found.hosted.append("web_search_options")
    form = object_at(decoded, "response_format", "")
    return found.turn(
        "chat",
        decoded,
        fields,
        headers,
        read=("messages", "tools", "functions"),
        limits=("max_completion_tokens", "max_tokens"),
        schema=form.get("type", "text") != "text",
        stop_sequences=bool(strings(decoded.get("stop"), "stop")),
        prefill=messages[-1]["role"] == "assistant",
    )


def same(turn: Turn, decoded: Mapping[str, Any], options: ChatOptions, walk: Walk) -> dict[str, Any]:
    """Return the fields for a local server: each as it came, but for what only advises.

    Raise CannotCarry for what local servers accept and then do not do.
    """
    _check_messages(objects(decoded.get("messages"), "messages"), options, walk)
    body: dict[str, Any] = {name: turn.fields[name] for name in walk.fields(decoded, "chat.request", "")}
    tools = objects(decoded.get("tools"), "tools")
    kept = [
        tool
        for number, tool in enumerate(tools)
        if offered(kind_of(tool, f"tools[{number}]"), "chat.tools", f"tools[{number}]", options, walk)
    ]
    if len(kept) != len(tools):
        body["tools"] = kept
    check_choice(decoded.get("tool_choice"), "chat.tool_choices", walk)
    if form := object_at(decoded, "response_format", ""):
        check_form(form, "chat.formats", "response_format", options, walk)
    if turn.streamed:
        object_at(decoded, "stream_options", "")
    return body


def _check_messages(messages: list[dict[str, Any]], options: ChatOptions, walk: Walk) -> None:
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        walk.check(message, "chat.message", path)
        walk.kind(text_at(message, "role", path), "chat.roles", path)
        for at, part in enumerate(content(message.get("content"), f"{path}.content", "text")):
            where = f"{path}.content[{at}]"
            kind = kind_of(part, where)
            walk.kind(kind, "chat.parts", where)
            if kind == "image_url":
                image(text_at(object_at(part, "image_url", where), "url", f"{where}.image_url"), where, options)
        for at, one in enumerate(objects(message.get("tool_calls"), f"{path}.tool_calls")):
            where = f"{path}.tool_calls[{at}]"
            walk.kind(kind_of(one, where, "function"), "chat.calls", where)
    check_prefill(messages[-1].get("role"), f"messages[{len(messages) - 1}]", options)


def check_prefill(last_role: Any, path: str, options: ChatOptions) -> None:
    """Raise CannotCarry if the last message is the beginning of an answer, and the server does not go on with it."""
    if last_role == "assistant" and not options.prefill:
        raise CannotCarry(path, "the beginning of an answer, which this server does not go on with")


def check_form(form: Mapping[str, Any], table: str, path: str, options: ChatOptions, walk: Walk) -> str:
    """Return the type of the answer's form. Raise CannotCarry if the server keeps to none."""
    kind = kind_of(form, path)
    walk.kind(kind, table, path)
    if kind != "text" and not options.schema:
        raise CannotCarry(path, "a form of the answer that this server does not keep to", "ask for it in words")
    return kind


def check_choice(choice: Any, table: str, walk: Walk) -> None:
    """Raise CannotCarry for a choice of tools that is refused, BadRequest for one that is none."""
    if choice is None:
        return
    if not isinstance(choice, str | dict):
        raise BadRequest("tool_choice", "it is neither a text nor an object")
    walk.kind(choice if isinstance(choice, str) else kind_of(choice, "tool_choice"), table, "tool_choice")


def named(name: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the choice of one tool. Raise CannotCarry if it is not among those that are offered."""
    if all(tool["function"]["name"] != name for tool in tools):
        raise CannotCarry("tool_choice", f"the choice of a tool that is not offered: {plain(name)!r}")
    return {"type": "function", "function": {"name": name}}


def image(url: str, path: str, options: ChatOptions) -> dict[str, Any]:
    """Return an image as a part. Raise CannotCarry if the model sees none, or the server would fetch it."""
    if not url.startswith("data:"):
        raise CannotCarry(path, "an image by URL, which the server would fetch", "send its bytes")
    if not options.vision:
        raise CannotCarry(path, "an image, which this model does not see", "describe it in words")
    return {"type": "image_url", "image_url": {"url": url}}


def offered(kind: str, table: str, path: str, options: ChatOptions, walk: Walk) -> bool:
    """Return whether a tool of this type is offered. Raise CannotCarry if not, unless the operator leaves it out."""
    try:
        return walk.kind(kind, table, path)
    except CannotCarry:
        if not options.omit_hosted_tools:
            raise
        walk.omit(f"{path} {plain(kind)}")
        return False
