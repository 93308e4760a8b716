"""What a task may ask of the API: its own model, an answer of its own length, and nothing that the API fetches for it.

The API can reach out by itself: tools that run there, MCP servers, files by URL. Through these a sandboxed task would
have a network, and a bill, that nobody gave it. So what passes is listed, and the rest is refused. What is sent is the
checked document, encoded anew: no other parser can read anything else in it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from farmhand.meter.bounds import check_values
from farmhand.meter.errors import ApiError
from farmhand.meter.images import image_tokens

#: Requests of one attempt. A task with tools takes one for each turn; far more than any easy task has.
MAX_REQUESTS = 500
#: Values of one request. Of a task with tools a turn has about 20, its tools a few thousand.
MAX_VALUES = 100_000
#: Source of the names: the provider's Messages reference; what is not here is not passed.
_FIELDS = frozenset({
    "cache_control", "context_management", "max_tokens", "messages", "metadata", "model", "output_config",
    "stop_sequences", "stream", "system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
})  # fmt: skip
#: What counting tokens takes of them, but for `context_management`: what is cleared may not be, and is counted.
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
_MESSAGE_FIELDS = frozenset({"role", "content", "output_config"})
_BLOCKS = frozenset({
    "document", "image", "redacted_thinking", "search_result", "text", "thinking", "tool_reference",
    "tool_result", "tool_use",
})  # fmt: skip
_INLINE = frozenset({"base64", "text", "content"})
#: Tools that run where the client is; the API's own have types such as web_fetch_20250910.
_CLIENT_TOOLS = frozenset({None, "custom"})
#: Edits that only leave things out. `compact_*` is a paid pass of the model over the whole conversation.
_EDITS = frozenset({"clear_thinking_20251015", "clear_tool_uses_20250919"})
#: What the claude CLI asks for, and what changes neither the price nor who reads. Source: requests and strings of
#: 2.1.330. Each other one is left out: a field that needs it is then refused by the API, which costs nothing.
BETAS = frozenset({
    "claude-code-20250219", "context-management-2025-06-27", "effort-2025-11-24", "extended-cache-ttl-2025-04-11",
    "interleaved-thinking-2025-05-14", "mid-conversation-system-2026-04-07", "per-turn-control-2026-07-01",
    "prompt-caching-scope-2026-01-05", "redact-thinking-2026-02-12", "structured-outputs-2025-12-15",
    "thinking-display-updates-2026-08-18", "thinking-token-count-2026-05-13", "token-counting-2024-11-01",
})  # fmt: skip
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PLAIN = re.compile(r"[ -~]{1,256}")
#: Betas that were left out, each told once; a task chooses their names, so they are not kept without end.
_left_out: set[str] = set()
_MAX_LEFT_OUT = 100
log = logging.getLogger("jada-agent")


class MessageRequest(msgspec.Struct, frozen=True):
    """A request that may be sent: `body` is what is sent, `max_tokens` bounds its answer with its thinking.

    `tokens` are what it can have at most on its way in, None where only the API can count them (a PDF). `written` is
    how long the prompt cache may keep them: "" (not at all), "5m" or "1h".
    """

    body: bytes
    max_tokens: int
    tokens: int | None
    written: str


def read(body: bytes, *, model: str, max_tokens: int) -> MessageRequest:
    """The request in `body`; ApiError where it is not one that a task with these limits may make.

    It takes time and memory in proportion to the size of `body`: four times that for text with one rare character.
    """
    try:
        check_values(body, MAX_VALUES)
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise _malformed(str(error)) from None
    if not isinstance(document, dict):
        raise _malformed("it is no object")
    if not _FIELDS.issuperset(document):
        raise _malformed(f"the field {min(document.keys() - _FIELDS)[:80]!r} is not passed")
    asked = _check_limits(document, model, max_tokens)
    _check_tools(document.get("tools"))
    _check_edits(document.get("context_management"))
    found = _Found()
    found.blocks(document.get("system"))
    for message in _objects(document.get("messages"), "messages"):
        if not _MESSAGE_FIELDS.issuperset(message):
            other = min(message.keys() - _MESSAGE_FIELDS)
            raise _malformed(f"the field {other[:80]!r} of a message is not passed")
        found.blocks(message.get("content"))
    try:
        sent = msgspec.json.encode(document)
    except (ValueError, OverflowError, RecursionError) as error:
        raise _malformed(str(error)) from None
    # The encoder writes names as they are and escapes each quote in a text: so these are names and whole values.
    written = "" if b'"cache_control":' not in sent else "1h" if b'"1h"' in sent else "5m"
    tokens = None if found.unsized else len(sent) - found.image_bytes + found.image_tokens
    return MessageRequest(sent, asked, tokens, written)


def to_count(request: MessageRequest) -> bytes:
    """The body that has the API count the tokens of `request`."""
    document = msgspec.json.decode(request.body)
    return msgspec.json.encode({name: document[name] for name in _COUNTED if name in document})


def check_number(requests: int) -> None:
    """ApiError where a task has made so many `requests` that it may make no more."""
    if requests >= MAX_REQUESTS:
        raise _refused(f"this task has made {requests} requests, which is the limit")


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """What passes of a client's `headers` (names in lower case); its credentials, first of all, do not."""
    passed = {"content-type": "application/json"}
    passed |= {name: headers[name] for name in ("accept", "user-agent") if _PLAIN.fullmatch(headers.get(name, ""))}
    if _VERSION.fullmatch(version := headers.get("anthropic-version", "")):
        passed["anthropic-version"] = version
    if not (betas := headers.get("anthropic-beta", "")):
        return passed
    asked = [value.strip() for value in betas.split(",")[:100]]
    for beta in set(asked) - BETAS - _left_out:
        if _NAME.fullmatch(beta) and len(_left_out) < _MAX_LEFT_OUT:
            _left_out.add(beta)
            log.warning("a task's client asks for the beta %s, which the meter does not pass", beta)
    if known := [beta for beta in asked if beta in BETAS]:
        passed["anthropic-beta"] = ",".join(known)
    return passed


class _Found:
    """What the blocks of a request hold, and the checks of them."""

    def __init__(self) -> None:
        self.image_bytes = self.image_tokens = 0
        self.unsized = False

    def blocks(self, content: Any) -> None:
        """Look at all blocks in `content`, however deep. ApiError."""
        if isinstance(content, str):
            return
        waiting = list(_objects(content, "content"))
        while waiting:
            block = waiting.pop()
            kind = block.get("type")
            if not isinstance(kind, str) or kind not in _BLOCKS:
                raise _refused(f"a block of type {str(kind)[:80]!r} does not pass")
            source = block.get("source")
            for inner in (block.get("content"), source.get("content") if isinstance(source, dict) else None):
                if inner is not None and not isinstance(inner, str):
                    waiting += _objects(inner, "content")
            if isinstance(source, dict):
                self._source(kind, source)

    def _source(self, kind: str, source: dict[str, Any]) -> None:
        how, data = source.get("type"), source.get("data")
        if not isinstance(how, str) or how not in _INLINE:
            raise _refused(f"a source of type {str(how)[:80]!r} would be fetched by the API")
        if how != "base64":
            return
        if kind == "image" and isinstance(data, str):
            self.image_bytes += len(data)
            self.image_tokens += image_tokens(data)
        else:
            self.unsized = True


def _check_limits(document: dict[str, Any], model: str, max_tokens: int) -> int:
    """The most tokens of an answer: `max_tokens`, or what it may think where that is more. ApiError."""
    name = document.get("model")
    if not isinstance(name, str):
        raise _malformed("model is no text")
    if name != model:
        raise _refused(f"this task's token is for the model {model!r}, not {name[:80]!r}")
    if not isinstance(document.get("stream", False), bool):
        raise _malformed("stream is neither true nor false")
    most = 0
    asked = {"max_tokens": document.get("max_tokens", 0)}
    # With interleaved thinking the one may be above the other. Source: the provider's extended thinking guide.
    if isinstance(thinking := document.get("thinking"), dict):
        asked["thinking.budget_tokens"] = thinking.get("budget_tokens", 0)
    for field, tokens in asked.items():
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
            raise _malformed(f"{field} is no whole number of 0 or more")
        if tokens > max_tokens:
            # The API's own words: the claude CLI understands them and asks for less.
            what = f"{field}: {min(tokens, 10**12)} > {max_tokens}, which is the maximum allowed number of output"
            raise ApiError("invalid_request", f"{what} tokens for this task of {model}", status=400)
        most = max(most, tokens)
    return most


def _check_tools(tools: Any) -> None:
    for tool in () if tools is None else _objects(tools, "tools"):
        kind = tool.get("type")
        if not isinstance(kind, str | None) or kind not in _CLIENT_TOOLS:
            raise _refused(f"the tool {str(kind)[:80]!r} would run at the API's side")


def _check_edits(management: Any) -> None:
    if management is None:
        return
    if not isinstance(management, dict) or management.keys() - {"edits"}:
        raise _malformed("context_management has edits and nothing else")
    for edit in _objects(management.get("edits", []), "edits"):
        kind = edit.get("type")
        if not isinstance(kind, str) or kind not in _EDITS:
            raise _refused(f"the edit {str(kind)[:80]!r} of the context does not pass")


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    """`value`, a list of objects; nothing is an empty one. ApiError."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _malformed(f"{name} is no list of objects")
    return value


def _malformed(why: str) -> ApiError:
    return ApiError("invalid_request", f"not a Messages API request that the meter passes: {why}"[:500], status=400)


def _refused(what: str) -> ApiError:
    return ApiError("permission_error", what, status=403)
