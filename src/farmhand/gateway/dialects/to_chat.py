"""A Chat Completions request for a local server, from a turn of any dialect. What cannot be carried is refused by path.

Every field and every block goes through the table of `carries`: nothing is dropped that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from farmhand.gateway.carries import ChatOptions, ChatRequest, Walk
from farmhand.gateway.dialects import chat, responses
from farmhand.gateway.dialects.building import Conversation, call, offer
from farmhand.gateway.dialects.reading import content, kind_of, object_at, objects, role_of, strings, text_at
from farmhand.gateway.turn import BadRequest, CannotCarry, Turn

_PLAIN = ("max_tokens", "temperature", "top_k", "top_p")
_CHOICES = {"any": "required", "auto": "auto", "none": "none"}
_ROLES = frozenset({"assistant", "system", "user"})
#: The first system block of a Claude Code request names the account to bill, in words that differ per conversation:
#: with it, no prompt that a local server has cached would be found again.
ATTRIBUTION = "x-anthropic-billing-header:"


def request(turn: Turn, options: ChatOptions) -> ChatRequest:
    """Return the request. Raise CannotCarry for what the server cannot be given, BadRequest for a wrong type."""
    walk = Walk()
    decoded = turn.values()
    try:
        body = _BODIES[turn.dialect](turn, decoded, options, walk)
        body["model"] = options.model
        if turn.streamed:
            asked = decoded.get("stream_options") if turn.dialect == "chat" else None
            body |= {"stream": True, "stream_options": {**(asked or {}), "include_usage": True}}
        return ChatRequest(msgspec.json.encode({**body, **options.extra_body}), walk.omitted)
    except OverflowError:
        raise BadRequest("", "the request has a whole number of more than 64 bits") from None


def _messages(turn: Turn, decoded: Mapping[str, Any], options: ChatOptions, walk: Walk) -> dict[str, Any]:
    """Return the body made of a Messages request."""
    carried = {name: decoded[name] for name in walk.fields(decoded, "messages.request", "")}
    told = Conversation(options.mid_system)
    listed = isinstance(decoded.get("system"), list)
    for number, block in enumerate(content(decoded.get("system"), "system", "text")):
        text = _text(block, f"system[{number}]", walk)
        if listed and number == 0 and text.startswith(ATTRIBUTION) and "\n" not in text:
            walk.omit("attribution")
        else:
            told.system(text)
    found = _Messages(told, options, walk)
    found.read(objects(decoded.get("messages"), "messages"))
    body: dict[str, Any] = {"messages": told.finish()}
    body |= {name: carried[name] for name in _PLAIN if carried.get(name) is not None}
    if stop := strings(decoded.get("stop_sequences"), "stop_sequences"):
        body["stop"] = stop
    tools = _tools(decoded, options, walk, found)
    if tools:
        body["tools"] = tools
    if choice := object_at(decoded, "tool_choice", ""):
        walk.check(choice, "messages.tool_choice", "tool_choice")
        kind = kind_of(choice, "tool_choice")
        walk.kind(kind, "messages.tool_choices", "tool_choice")
        if kind == "tool":
            body["tool_choice"] = chat.named(text_at(choice, "name", "tool_choice"), tools)
        else:
            body["tool_choice"] = _CHOICES[kind]
        if choice.get("disable_parallel_tool_use"):
            body["parallel_tool_calls"] = False
    output = object_at(decoded, "output_config", "")
    walk.check(output, "messages.output_config", "output_config")
    if form := object_at(output, "format", "output_config"):
        path = "output_config.format"
        walk.check(form, "messages.format", path)
        chat.check_form(form, "messages.formats", path, options, walk)
        schema = {"name": "answer", "schema": object_at(form, "schema", path), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _text(block: Mapping[str, Any], path: str, walk: Walk) -> str:
    """Return the text of a block that must be text."""
    if kind_of(block, path) != "text":
        walk.kind(kind_of(block, path), "messages.result_blocks", path)
        raise BadRequest(path, "it is no text")
    walk.check(block, "messages.text", path)
    return text_at(block, "text", path)


class _Messages:
    """The conversation of a Messages request on its way into Chat's form."""

    def __init__(self, told: Conversation, options: ChatOptions, walk: Walk) -> None:
        self._told, self._options, self._walk = told, options, walk
        #: Names of tools that the conversation has loaded, and of those that it has taken away.
        self.loaded: set[str] = set()
        self.removed: set[str] = set()

    def read(self, messages: list[dict[str, Any]]) -> None:
        """Add all messages. Raise CannotCarry or BadRequest."""
        last_user = max((n for n, message in enumerate(messages) if message.get("role") == "user"), default=-1)
        for number, message in enumerate(messages):
            path = f"messages[{number}]"
            role = role_of(message, _ROLES, path)
            table = "messages.system_message" if role == "system" else "messages.message"
            self._walk.check(message, table, path)
            blocks = content(message.get("content"), f"{path}.content", "text")
            parts: list[dict[str, Any]] = []
            calls: list[dict[str, Any]] = []
            for at, block in enumerate(blocks):
                if block.get("type") == "tool_result" and role != "user":
                    raise BadRequest(f"{path}.content[{at}]", "only a user's message has tool_result blocks")
                self._block(block, f"{path}.content[{at}]", parts, calls)
            if role == "assistant":
                if number == len(messages) - 1:
                    chat.check_prefill(role, path, self._options)
                if any(part["type"] != "text" for part in parts):
                    raise CannotCarry(path, "an image in an answer")
                self._told.assistant("".join(part["text"] for part in parts), calls)
            elif calls:
                raise BadRequest(path, "only an assistant's message has tool_use blocks")
            elif role == "user":
                # A turn of tool results alone has nothing else to say.
                if parts or not blocks:
                    self._told.user(parts)
            elif parts and (message.get("clear_at") != "next_user_message" or number > last_user):
                self._told.system("\n\n".join(part.get("text", "") for part in parts))

    def _block(
        self, block: dict[str, Any], path: str, parts: list[dict[str, Any]], calls: list[dict[str, Any]]
    ) -> None:
        """Add a block: to `parts` or `calls`, or at once to the conversation, if it is a tool's result."""
        kind = kind_of(block, path)
        if not self._walk.kind(kind, "messages.blocks", path):
            return
        if kind in {"text", "image"}:
            parts.append(self._part(block, kind, path))
        elif kind == "tool_use":
            self._walk.check(block, "messages.tool_use", path)
            arguments = msgspec.json.encode(object_at(block, "input", path)).decode()
            calls.append(call(text_at(block, "id", path), text_at(block, "name", path), arguments))
        elif kind == "tool_result":
            self._walk.check(block, "messages.tool_result", path)
            inner = content(block.get("content"), f"{path}.content", "text")
            shown = [self._shown(one, f"{path}.content[{at}]") for at, one in enumerate(inner)]
            self._told.result(text_at(block, "tool_use_id", path), shown, failed=block.get("is_error") is True)
        else:
            self._walk.check(block, "messages.tool_change", path)
            tool = object_at(block, "tool", path)
            self._walk.kind(kind_of(tool, f"{path}.tool"), "messages.changed", f"{path}.tool")
            self._walk.check(tool, "messages.changed_tool", f"{path}.tool")
            name = text_at(tool, "name", f"{path}.tool")
            added = kind == "tool_addition"
            (self.loaded if added else self.removed).add(name)
            (self.removed if added else self.loaded).discard(name)

    def _shown(self, block: dict[str, Any], path: str) -> dict[str, Any]:
        """Return a block of a tool's result as a part."""
        kind = kind_of(block, path)
        self._walk.kind(kind, "messages.result_blocks", path)
        if kind != "tool_reference":
            return self._part(block, kind, path)
        self._walk.check(block, "messages.tool_reference", path)
        name = text_at(block, "tool_name", path)
        self.loaded.add(name)
        return {"type": "text", "text": f"The tool {name} is available."}

    def _part(self, block: dict[str, Any], kind: str, path: str) -> dict[str, Any]:
        if kind == "text":
            return {"type": "text", "text": _text(block, path, self._walk)}
        self._walk.check(block, "messages.image", path)
        source = object_at(block, "source", path)
        self._walk.kind(kind_of(source, f"{path}.source"), "messages.sources", f"{path}.source")
        self._walk.check(source, "messages.source", f"{path}.source")
        where = f"{path}.source"
        data = f"data:{text_at(source, 'media_type', where)};base64,{text_at(source, 'data', where)}"
        return chat.image(data, path, self._options)


def _tools(decoded: Mapping[str, Any], options: ChatOptions, walk: Walk, found: _Messages) -> list[dict[str, Any]]:
    """Return the offered tools. One that is to be loaded later is offered once the conversation has named it."""
    tools = []
    for number, tool in enumerate(objects(decoded.get("tools"), "tools")):
        path = f"tools[{number}]"
        if not chat.offered(kind_of(tool, path, "custom"), "messages.tools", path, options, walk):
            continue
        walk.check(tool, "messages.tool", path)
        name = text_at(tool, "name", path)
        if name in found.removed or (tool.get("defer_loading") and name not in found.loaded):
            walk.omit("defer_loading" if name not in found.removed else "tool_removal")
            continue
        description = tool.get("description")
        if examples := tool.get("input_examples"):
            description = f"{description or ''}\nExamples of its input: {msgspec.json.encode(examples).decode()}"
        tools.append(offer(name, description, object_at(tool, "input_schema", path), tool.get("strict")))
    return tools


_BODIES = {"chat": chat.same, "messages": _messages, "responses": responses.to_chat}
