"""The requests that a task may make: its own model, a limited answer, and nothing that the API fetches itself.

Tools that run at the API, MCP servers and files by URL would give a sandboxed task network access, and costs, that
nobody granted. So there is an allow-list. The checked document is sent re-encoded: no parser can read more in it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from farmhand.meter.bounds import check_values
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import BEARER_BETA, MessageRequest
from farmhand.meter.images import image_tokens

#: Requests per attempt. A task with tools makes one per turn; this is far more than a simple task needs.
MAX_REQUESTS = 500
#: JSON values per request. In a task with tools a turn has about 20, its tools a few thousand.
MAX_VALUES = 100_000
#: Source of the names: the provider's Messages reference. Any other field is refused.
FIELDS = frozenset({
    "cache_control", "context_management", "max_tokens", "messages", "metadata", "model", "output_config",
    "stop_sequences", "stream", "system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
})  # fmt: skip
#: Fields that token counting accepts, except `context_management`: the API might not clear what the edits name.
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
_MESSAGE_FIELDS = frozenset({"role", "content", "output_config"})
_BLOCKS: frozenset[str | None] = frozenset({
    "document", "image", "redacted_thinking", "search_result", "text", "thinking", "tool_reference",
    "tool_result", "tool_use",
})  # fmt: skip
_INLINE: frozenset[str | None] = frozenset({"base64", "text", "content"})
#: Tools that run at the client. The API's own tools have types such as web_fetch_20250910.
_CLIENT_TOOLS: frozenset[str | None] = frozenset({None, "custom"})
#: Edits that only remove content. `compact_*` is a paid pass of the model over the whole conversation.
_EDITS: frozenset[str | None] = frozenset({"clear_thinking_20251015", "clear_tool_uses_20250919"})
#: Betas that the claude CLI requests and that change neither the price nor who can read the data. Source: requests and
#: strings of 2.1.330. Any other beta is dropped: the API then refuses a field that needs it, which costs nothing.
BETAS = frozenset({
    "claude-code-20250219", "context-management-2025-06-27", "effort-2025-11-24", "extended-cache-ttl-2025-04-11",
    "interleaved-thinking-2025-05-14", "mid-conversation-system-2026-04-07", "per-turn-control-2026-07-01",
    "prompt-caching-scope-2026-01-05", "redact-thinking-2026-02-12", "structured-outputs-2025-12-15",
    "thinking-display-updates-2026-08-18", "thinking-token-count-2026-05-13", "token-counting-2024-11-01",
})  # fmt: skip
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PLAIN = re.compile(r"[ -~]{1,256}")
#: Dropped betas, each logged once. The number is limited, because a task chooses the names.
_left_out: set[str] = set()
_MAX_LEFT_OUT = 100
log = logging.getLogger("jada-agent")


def read(body: bytes, *, model: str, max_tokens: int) -> MessageRequest:
    """Return the checked request in `body`. Raise ApiError if a task with these limits may not make it.

    Takes time and memory in proportion to the size of `body`: four times its size for text with one rare character.
    """
    try:
        check_values(body, MAX_VALUES)
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise malformed(str(error)) from None
    if not isinstance(document, dict):
        raise malformed("it is no object")
    _known(document, FIELDS, "")
    asked = _check_limits(document, model, max_tokens)
    for tool in objects_in(document.get("tools"), "tools"):
        _listed(tool, _CLIENT_TOOLS, "the tool {} would run at the API's side")
    _check_edits(document.get("context_management"))
    found = FoundContent()
    found.blocks(document.get("system"))
    for message in objects_in(document.get("messages"), "messages"):
        _known(message, _MESSAGE_FIELDS, " of a message")
        found.blocks(message.get("content"))
    try:
        sent = msgspec.json.encode(document)
    except (ValueError, OverflowError, RecursionError) as error:
        raise malformed(str(error)) from None
    # The encoder writes names unchanged and escapes quotes in text, so these matches are names and whole values.
    return MessageRequest(sent, asked, found.tokens(len(sent)), cached_for(sent))


def cached_for(body: bytes) -> str:
    """Return how long the prompt cache may keep the input of an encoded request, as `MessageRequest.written` has it."""
    return "" if b'"cache_control"' not in body else "1h" if b'"1h"' in body else "5m"


def to_count(request: MessageRequest) -> bytes:
    """Return the body of the request that has the API count the tokens of `request`."""
    document = msgspec.json.decode(request.body)
    return msgspec.json.encode({name: document[name] for name in _COUNTED if name in document})


def check_number(requests: int) -> None:
    """Raise ApiError if a task that has made `requests` requests may make no more."""
    if requests >= MAX_REQUESTS:
        raise _refused(f"this task has made all its {requests} requests")


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the client's `headers` (names in lower case) that may pass; its credentials never do."""
    passed = {"content-type": "application/json"}
    passed |= {name: headers[name] for name in ("accept", "user-agent") if _PLAIN.fullmatch(headers.get(name, ""))}
    if _VERSION.fullmatch(version := headers.get("anthropic-version", "")):
        passed["anthropic-version"] = version
    if not (betas := headers.get("anthropic-beta", "")):
        return passed
    asked = [value.strip() for value in betas.split(",")[:100]]
    for beta in set(asked) - BETAS - _left_out - {BEARER_BETA}:  # that one goes with the key
        if _NAME.fullmatch(beta) and len(_left_out) < _MAX_LEFT_OUT:
            _left_out.add(beta)
            log.warning("a task's client asks for the beta %s, which the meter does not pass", beta)
    if known := [beta for beta in asked if beta in BETAS]:
        passed["anthropic-beta"] = ",".join(known)
    return passed


class FoundContent:
    """The content found in a request's blocks, and the checks of it."""

    def __init__(self) -> None:
        self.image_bytes = self.image_tokens = 0
        self.unsized = False

    def blocks(self, content: Any) -> None:
        """Check all blocks in `content`, at any depth. Raise ApiError for one that is not allowed."""
        waiting = [] if isinstance(content, str) else list(objects_in(content, "content"))
        while waiting:
            block = waiting.pop()
            kind = _listed(block, _BLOCKS, "a block of type {} does not pass")
            source = block.get("source")
            inside = [block.get("content")]
            if isinstance(source, dict):
                inside.append(source.get("content"))
                if _listed(source, _INLINE, "a source of type {} would be fetched by the API") == "base64":
                    self.data(kind, source.get("data"))
            for inner in inside:
                if not isinstance(inner, str):
                    waiting += objects_in(inner, "content")

    def tokens(self, size: int) -> int | None:
        """Return the most input tokens of a request of `size` bytes; None if only the API can count them."""
        return None if self.unsized else size - self.image_bytes + self.image_tokens

    def data(self, kind: str | None, data: Any) -> None:
        """Count a source's base64."""
        if kind == "image" and isinstance(data, str):
            self.image_bytes += len(data)
            self.image_tokens += image_tokens(data)
        else:
            self.unsized = True


def _listed(value: dict[str, Any], allowed: frozenset[str | None], otherwise: str) -> str | None:
    """Return the `type` of `value`. Raise ApiError with the message `otherwise` if it is none of `allowed`."""
    kind = value.get("type")
    if not isinstance(kind, str | None) or kind not in allowed:
        raise _refused(otherwise.format(repr(str(kind)[:80])))
    return kind


def _known(value: dict[str, Any], fields: frozenset[str], where: str) -> None:
    """Raise ApiError if `value` has other fields than `fields`."""
    if not fields.issuperset(value):
        raise malformed(f"the field {min(value.keys() - fields)[:80]!r}{where} is not passed")


def _check_limits(document: dict[str, Any], model: str, max_tokens: int) -> int:
    """Return the most tokens of an answer: `max_tokens`, or the thinking budget if that is more. Raise ApiError."""
    name = document.get("model")
    if not isinstance(name, str):
        raise malformed("model is no text")
    if name != model:
        raise _refused(f"this task's token is for the model {model!r}, not {name[:80]!r}")
    if not isinstance(document.get("stream", False), bool):
        raise malformed("stream is neither true nor false")
    most = 0
    asked = {"max_tokens": document.get("max_tokens", 0)}
    # With interleaved thinking the budget may exceed max_tokens. Source: the provider's extended thinking guide.
    if isinstance(thinking := document.get("thinking"), dict):
        asked["thinking.budget_tokens"] = thinking.get("budget_tokens", 0)
    for field, tokens in asked.items():
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
            raise malformed(f"{field} is no whole number of 0 or more")
        if tokens > max_tokens:
            # The API's own wording: the claude CLI recognises it and requests less.
            what = f"{field}: {min(tokens, 10**12)} > {max_tokens}, which is the maximum allowed number of output"
            raise ApiError("invalid_request", f"{what} tokens for this task of {model}", status=400)
        most = max(most, tokens)
    return most


def _check_edits(management: Any) -> None:
    if management is None:
        return
    if not isinstance(management, dict) or management.keys() - {"edits"}:
        raise malformed("context_management has edits and nothing else")
    for edit in objects_in(management.get("edits"), "edits"):
        _listed(edit, _EDITS, "the edit {} of the context does not pass")


def objects_in(value: Any, name: str) -> list[dict[str, Any]]:
    """Return `value`, a list of objects, with None as an empty list. Raise ApiError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise malformed(f"{name} is no list of objects")
    return value


def malformed(why: str) -> ApiError:
    """Return the refusal of a body that is no request."""
    return ApiError("invalid_request", f"not a Messages API request that the meter passes: {why}"[:500], status=400)


def _refused(what: str) -> ApiError:
    return ApiError("permission_error", what, status=403)
