"""The requests of a harness that its own operator pays for: all that costs by its tokens passes, byte for byte.

The list is open, unlike that of tasks: a field that nobody knows here passes and is noted, since a new release of a
client must not stop working. What costs beside its tokens, or hides tokens from the reservation, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from farmhand.meter.bounds import check_values
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import BEARER_BETA, MessageRequest
from farmhand.meter.policy import FIELDS, FoundContent, cached_for, malformed, objects_in
from farmhand.meter.reserve import COUNT_MARGIN

#: JSON values per request.
_MAX_VALUES = 400_000
#: Fields that a client was seen to send, or the provider's SDK has, beside those of tasks. They cost nothing.
_FREE = frozenset({"betas", "billing_policy", "diagnostics", "safeguards", "user_profile_id", "workspace_id"})
#: Fields that cost beside the tokens, or have tokens that the request does not show: what they are, and the values
#: that ask for nothing of the kind.
_COSTLY: Mapping[str, tuple[str, frozenset[str]]] = {
    "compaction": ("a paid pass over the conversation", frozenset()),
    "container": ("a container at the provider", frozenset()),
    "fallback_credit_token": ("an answer by another model", frozenset()),
    "fallbacks": ("an answer by another model", frozenset()),
    "inference_geo": ("a place at a price of its own", frozenset({"global", "not_available"})),
    "mcp_servers": ("tools that run at the provider", frozenset()),
    "service_tier": ("a tier at a price of its own", frozenset({"auto", "standard", "standard_only"})),
    "speed": ("a speed at a price of its own", frozenset({"standard"})),
    "thread": ("a conversation kept at the provider", frozenset()),
}
_INLINE = frozenset({"base64", "text", "content"})
#: Blocks whose tokens are bounded by their bytes; a document's or an unknown block's are counted by the API.
_SIZED = frozenset({
    "fallback", "image", "redacted_thinking", "search_result", "text", "thinking", "tool_addition", "tool_reference",
    "tool_removal", "tool_result", "tool_use",
})  # fmt: skip
_PLAIN = re.compile(r"[ -~]{1,4096}")


@dataclass(slots=True)
class HarnessPolicy:
    """The policy of one harness turn. `hosted_tools` and `fetch` open what the operator has opened.

    `counted` are the input tokens as the API counted them, None if it was not asked. `unknown` are the names that
    nobody knows here. `checked` is what `read` has returned before: its body is not read a second time.
    """

    hosted_tools: bool = False
    fetch: bool = False
    counted: int | None = None
    unknown: list[str] = field(default_factory=list)
    checked: MessageRequest | None = None

    def read(self, body: bytes, *, model: str, max_tokens: int) -> MessageRequest:
        """Return the request in `body`, whose bytes stay as they are. Raise ApiError (400), with the part's place."""
        checked, self.checked = self.checked, None
        if checked is not None and checked.body is body:
            return msgspec.structs.replace(checked, tokens=self._tokens(checked.tokens))
        try:
            check_values(body, _MAX_VALUES)
            document = msgspec.json.decode(body)
        except (ValueError, RecursionError) as error:
            raise malformed(str(error)) from None
        if not isinstance(document, dict) or document.get("model") != model:
            raise malformed("it is no object, or is for another model")
        for name, value in document.items():
            self._field(name, value)
        asked = max(_number(document, "max_tokens"), _number(document.get("thinking"), "budget_tokens"))
        if asked > max_tokens:
            # The API's own wording: the claude CLI recognises it and asks for less.
            what = f"max_tokens: {min(asked, 10**12)} > {max_tokens}, which is the maximum allowed number of output"
            raise ApiError("invalid_request", f"{what} tokens for {model} within the gateway's limits", status=400)
        for number, tool in enumerate(objects_in(document.get("tools"), "tools")):
            if tool.get("type") not in (None, "custom") and not self.hosted_tools:
                raise _costly(f"tools[{number}]", f"a tool of the provider ({str(tool['type'])[:40]!r})")
        found = FoundContent()
        self._blocks(document.get("system"), "system", found)
        for number, message in enumerate(objects_in(document.get("messages"), "messages")):
            self._blocks(message.get("content"), f"messages[{number}].content", found)
        return MessageRequest(body, asked, self._tokens(found.tokens(len(body))), cached_for(body))

    def forwarded(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return what passes: every `anthropic-*` header, and no credential."""
        passed = {"content-type": "application/json"}
        passed |= {
            name: value
            for name, value in headers.items()
            if (name.startswith("anthropic-") or name in ("accept", "user-agent")) and _PLAIN.fullmatch(value)
        }
        # That beta goes with a key of another kind.
        betas = [beta.strip() for beta in passed.pop("anthropic-beta", "").split(",")]
        if known := [beta for beta in betas if beta and beta != BEARER_BETA]:
            passed["anthropic-beta"] = ",".join(known)
        return passed

    def _tokens(self, most: int | None) -> int | None:
        return most if self.counted is None else self.counted + self.counted // COUNT_MARGIN

    def _field(self, name: str, value: Any) -> None:
        if name in _COSTLY:
            what, free = _COSTLY[name]
            if value not in (None, False, "", [], {}) and not (isinstance(value, str) and value in free):
                raise _costly(name, what)
        elif name not in FIELDS and name not in _FREE:
            self._note(name)
        if name == "context_management" and isinstance(value, dict):
            for number, edit in enumerate(objects_in(value.get("edits"), "context_management.edits")):
                if not str(edit.get("type")).startswith("clear_"):
                    raise _costly(f"context_management.edits[{number}]", "a paid pass over the conversation")

    def _blocks(self, content: Any, path: str, found: FoundContent) -> None:
        """Look at all blocks, at any depth."""
        waiting = [] if isinstance(content, str) else [(path, objects_in(content, path))]
        while waiting:
            where, blocks = waiting.pop()
            for number, block in enumerate(blocks):
                at, kind, source = f"{where}[{number}]", block.get("type"), block.get("source")
                if kind not in _SIZED:
                    found.unsized = True
                    if kind != "document":
                        self._note(str(kind))
                if isinstance(source, dict):
                    self._source(source, kind, f"{at}.source", found)
                    if isinstance(inner := source.get("content"), list):
                        waiting.append((f"{at}.source.content", objects_in(inner, f"{at}.source.content")))
                elif kind == "container_upload" and not self.fetch:
                    raise _costly(at, "a file that the provider would fetch")
                if isinstance(inner := block.get("content"), list):
                    waiting.append((f"{at}.content", objects_in(inner, f"{at}.content")))

    def _source(self, source: Mapping[str, Any], kind: Any, path: str, found: FoundContent) -> None:
        if source.get("type") == "base64":
            found.data(kind, source.get("data"))
        elif source.get("type") not in _INLINE:
            found.unsized = True
            if not self.fetch:
                raise _costly(path, "something that the provider would fetch")

    def _note(self, name: str) -> None:
        if len(self.unknown) < 20 and (short := re.sub(r"[^a-zA-Z0-9_.-]", "?", name[:40])) not in self.unknown:
            self.unknown.append(short)


def _number(value: Any, name: str) -> int:
    found = value.get(name) if isinstance(value, dict) else None
    if found is None:
        return 0
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise malformed(f"{name} is no whole number of 0 or more")
    return found


def _costly(path: str, what: str) -> ApiError:
    message = f"{path} asks for {what}: its cost is not bounded by its tokens, so the gateway does not pay for it"
    return ApiError("invalid_request", message, status=400)
