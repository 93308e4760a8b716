"""Checks of `system` and `messages`: roles, blocks, and that tool results answer tool uses."""

from __future__ import annotations

from typing import Any

from tests.support.messages_api.catalog import Model
from tests.support.messages_api.errors import ApiError, bad
from tests.support.messages_api.fields import (
    Object,
    a_bool,
    a_list,
    a_string,
    an_object,
    cache_control,
    join,
    one_of,
    only,
    required,
    tag,
)

_FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # type: (required, optional)
    "text": (("text",), ("cache_control", "citations")),
    "image": (("source",), ("cache_control",)),
    "document": (("source",), ("cache_control", "citations", "context", "title")),
    "search_result": (("content", "source", "title"), ("cache_control", "citations")),
    "thinking": (("thinking", "signature"), ()),
    "redacted_thinking": (("data",), ()),
    "tool_use": (("id", "name", "input"), ("cache_control", "caller")),
    "tool_result": (("tool_use_id",), ("cache_control", "content", "is_error")),
}
_BY_ROLE: dict[str, tuple[str, ...]] = {
    "user": ("text", "image", "document", "search_result", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}
_SOURCES: dict[str, tuple[str, ...]] = {
    "base64": ("data", "media_type"),
    "url": ("url",),
    "text": ("data", "media_type"),
    "content": ("content",),
    "file": ("file_id",),
}


def check_system(value: object) -> None:
    """`system`: a string or a list of text blocks."""
    if isinstance(value, str):
        return
    for i, block in enumerate(a_list(value, "system")):
        _block(block, f"system.{i}", ("text",))


def check_messages(value: object, model: Model, betas: frozenset[str]) -> None:
    """The whole list of messages."""
    messages = a_list(value, "messages")
    if not messages:
        raise bad("messages", "at least one message is required")
    for i, message in enumerate(messages):
        _message(message, f"messages.{i}", model, betas)
    if messages[0]["role"] != "user":
        raise bad("messages", 'first message must use the "user" role')
    _check_last(messages, model)
    _check_pairs(messages)


def _message(value: object, path: str, model: Model, betas: frozenset[str]) -> None:
    message = an_object(value, path)
    required(message, path, ("content", "role"))
    per_turn = any(b.startswith("per-turn-control-") for b in betas)
    only(message, path, ("content", "role", "output_config") if per_turn else ("content", "role"))
    role = message["role"]
    if role == "system" and not (model.thinks or any(b.startswith("mid-conversation-system-") for b in betas)):
        # Only the newer models take instructions in the middle of a conversation.
        raise bad(
            "messages",
            'Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
            'not "system" as an input message role.',
        )
    if not isinstance(role, str) or role not in _BY_ROLE:
        one_of(role, f"{path}.role", ("user", "assistant"))
    content = message["content"]
    if isinstance(content, str):
        if not content and role == "user":
            raise bad(path, "user messages must have non-empty content")
        if content and not content.strip():
            raise bad("messages", "text content blocks must contain non-whitespace text")
        return
    blocks = a_list(content, f"{path}.content")
    if not blocks and role == "user":
        raise bad(path, "user messages must have non-empty content")
    for i, block in enumerate(blocks):
        _block(block, f"{path}.content.{i}", _BY_ROLE[role])


def _block(value: object, path: str, kinds: tuple[str, ...]) -> None:
    block = an_object(value, path)
    kind = tag(block, path, kinds)
    here = join(path, kind)
    needed, optional = _FIELDS[kind]
    required(block, here, needed)
    only(block, here, ("type", *needed, *optional))
    cache_control(block, here)
    if kind == "text":
        _text(block, here)
    elif kind in ("image", "document"):
        source = an_object(block["source"], f"{here}.source")
        fields = _SOURCES[tag(source, f"{here}.source", _SOURCES)]
        required(source, f"{here}.source.{source['type']}", fields)
    elif kind == "tool_use":
        for name in ("id", "name"):
            a_string(block[name], join(here, name))
        an_object(block["input"], f"{here}.input")
    elif kind == "tool_result":
        _tool_result(block, here)


def _text(block: Object, path: str) -> None:
    text = a_string(block["text"], f"{path}.text")
    if not text:
        if block.get("cache_control"):
            raise bad(path, "cache_control cannot be set for empty text blocks")
        raise bad("messages" if path.startswith("messages") else path, "text content blocks must be non-empty")
    if not text.strip():
        raise bad(
            "messages" if path.startswith("messages") else path, "text content blocks must contain non-whitespace text"
        )


def _tool_result(block: Object, path: str) -> None:
    a_string(block["tool_use_id"], f"{path}.tool_use_id")
    if "is_error" in block:
        a_bool(block["is_error"], f"{path}.is_error")
    content = block.get("content", "")
    if isinstance(content, str):
        return
    for i, inner in enumerate(a_list(content, f"{path}.content")):
        _block(inner, f"{path}.content.{i}", ("text", "image", "document", "search_result"))


def _check_last(messages: list[Object], model: Model) -> None:
    last = messages[-1]
    if last["role"] == "assistant":
        if not model.prefill:
            raise ApiError(
                400,
                "This model does not support assistant message prefill. The conversation must end with a user message.",
            )
        text = last["content"] if isinstance(last["content"], str) else last["content"][-1].get("text", "")
        if text != text.rstrip():
            raise bad("messages", "final assistant content cannot end with trailing whitespace")
    for i, message in enumerate(messages[:-1]):
        # A system message may be there for its output_config alone; the claude CLI sends such ones with --bare.
        if not message["content"] and not message.get("output_config"):
            raise bad(
                f"messages.{i}",
                "all messages must have non-empty content except for the optional final assistant message",
            )


def _ids(message: Object, kind: str, name: str) -> list[str]:
    content: Any = message["content"]
    if isinstance(content, str):
        return []
    return [block[name] for block in content if block["type"] == kind]


def _check_pairs(messages: list[Object]) -> None:
    """Each tool_use is answered in the next message, and each tool_result answers one of the message before."""
    turns = [(i, m) for i, m in enumerate(messages) if m["role"] != "system"]
    seen: set[str] = set()
    waiting: list[str] = []
    for i, message in turns:
        results = _ids(message, "tool_result", "tool_use_id")
        for id_ in results:
            if id_ not in waiting:
                raise bad(
                    f"messages.{i}.content.{results.index(id_)}",
                    f"unexpected `tool_use_id` found in `tool_result` blocks: {id_}. "
                    "Each `tool_result` block must have a corresponding `tool_use` block in the previous message.",
                )
        if missing := [id_ for id_ in waiting if id_ not in results]:
            raise bad(
                f"messages.{i - 1}",
                f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(missing)}. "
                "Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
            )
        waiting = _ids(message, "tool_use", "id")
        for id_ in waiting:
            if id_ in seen:
                raise bad("messages", "`tool_use` ids must be unique")
            seen.add(id_)
    if waiting:
        raise bad(
            f"messages.{turns[-1][0]}",
            f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(waiting)}. "
            "Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
        )
