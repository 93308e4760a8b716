"""From a checked request to the message that answers it; /v1/messages and the batches share it."""

from __future__ import annotations

from typing import Any

from tests.support.messages_api.answer import compose, new_id
from tests.support.messages_api.errors import ApiError
from tests.support.messages_api.rules import Rules
from tests.support.messages_api.usage import PromptCache
from tests.support.messages_api.validate import Request


def total(usage: dict[str, Any]) -> int:
    """All tokens of a prompt, from the cache or not."""
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(int(usage[name]) for name in names)


def uncached(usage: dict[str, Any]) -> int:
    """The tokens of a prompt that count against the limits."""
    return int(usage["input_tokens"] + usage["cache_creation_input_tokens"])


def measure(request: Request, key: str, cache: PromptCache, *, store: bool) -> dict[str, Any]:
    """The input side of `usage`; refuses a prompt that the model's context does not hold."""
    usage = cache.count(request, key, store=store)
    size = total(usage)
    if size > request.model.context:
        raise ApiError(400, f"prompt is too long: {size} tokens > {request.model.context} maximum")
    return usage


def reply(request: Request, usage: dict[str, Any], rules: Rules, *, tier: str = "standard") -> dict[str, Any]:
    """The whole message, with its usage. `tier` is `standard` or `batch`."""
    message: dict[str, Any] = {
        "id": new_id("msg_01"),
        "type": "message",
        "role": "assistant",
        "model": request.model.id,
    }
    message |= compose(request, rules)
    message["usage"] = {**usage, **message["usage"], "service_tier": tier, "inference_geo": "global"}
    return message
