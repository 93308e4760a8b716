"""What a task may ask of the API: its own model, an answer of its own length, and nothing that the API fetches for it.

The API can reach out by itself: tools that run there, MCP servers, files by URL. Through these a sandboxed task would
have a network, and a bill, that nobody gave it. So the fields that pass are listed, and the rest is refused.
"""

from __future__ import annotations

import msgspec

from farmhand.meter.problems import ApiError
from farmhand.task import Usage

#: Requests of one attempt. A task with tools takes one for each turn; far more than any easy task has.
MAX_REQUESTS = 500
#: Tools that run where the client is; the API's own have types such as web_fetch_20250910.
_CLIENT_TOOLS = frozenset({None, "custom"})
_INLINE = frozenset({"", "base64", "text", "content"})
_Ignored = msgspec.Raw
#: Above what the API adds to a request by itself, 346 tokens of tool instructions the most. Source: its tool use page.
_ADDED_TOKENS = 500


class _Source(msgspec.Struct):
    type: str = ""
    content: str | list[_Block] | None = None


class _Block(msgspec.Struct):
    type: str = ""
    source: str | _Source | None = None
    content: str | list[_Block] | None = None


class _Message(msgspec.Struct):
    content: str | list[_Block] = ""


class _Tool(msgspec.Struct):
    type: str | None = None


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    """A request's body. Source of the names: the provider's Messages reference; what is not here is not passed."""

    model: str
    messages: list[_Message] = []
    max_tokens: int = 0
    tools: list[_Tool] | None = None
    stream: bool = False
    cache_control: _Ignored = _Ignored()
    context_management: _Ignored = _Ignored()
    metadata: _Ignored = _Ignored()
    output_config: _Ignored = _Ignored()
    stop_sequences: _Ignored = _Ignored()
    system: _Ignored = _Ignored()
    temperature: _Ignored = _Ignored()
    thinking: _Ignored = _Ignored()
    tool_choice: _Ignored = _Ignored()
    top_k: _Ignored = _Ignored()
    top_p: _Ignored = _Ignored()


def check(body: bytes, *, model: str, max_tokens: int, requests: int) -> Ask:
    """The request in `body`; ApiError where it is not one that a task with these limits may make.

    `requests` is how many it has made already.
    """
    try:
        ask = msgspec.json.decode(body, type=Ask)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = f"not a Messages API request that the meter passes: {error}"
        raise ApiError("invalid_request", what[:500], status=400) from None
    if ask.model != model:
        raise _refused(f"this task's token is for the model {model!r}, not {ask.model[:80]!r}")
    if ask.max_tokens > max_tokens:
        # The API's own words: the claude CLI understands them and asks for less.
        what = f"max_tokens: {ask.max_tokens} > {max_tokens}, which is the maximum allowed number of output tokens"
        raise ApiError("invalid_request", f"{what} for this task of {model}", status=400)
    if requests >= MAX_REQUESTS:
        raise _refused(f"this task has made {requests} requests, which is the limit")
    for tool in ask.tools or ():
        if tool.type not in _CLIENT_TOOLS:
            raise _refused(f"the tool {tool.type[:80]!r} would run at the API's side")  # type: ignore[index]  # None is one of them
    _check_blocks([block for message in ask.messages if isinstance(message.content, list) for block in message.content])
    return ask


def at_most(body: bytes, max_tokens: int) -> Usage:
    """The most that the request in `body` may use, for what is reserved of a budget.

    Two bytes to a token and what the API adds for tools: text has about four bytes to a token, dense code and other
    scripts two and a half, images far more. Where the body asks for the prompt cache, all of it may be written there.
    """
    tokens = len(body) // 2 + _ADDED_TOKENS
    if b'"cache_control"' not in body:
        return Usage(input_tokens=tokens, output_tokens=max_tokens, requests=1)
    return Usage(
        cache_creation_input_tokens=tokens,
        cache_creation_1h_input_tokens=tokens if b'"1h"' in body else 0,
        output_tokens=max_tokens,
        requests=1,
    )


def _check_blocks(blocks: list[_Block]) -> None:
    while blocks:
        block = blocks.pop()
        if block.type == "container_upload":
            raise _refused("a file of the API's account is not a task's to read")
        for content in (block.content, block.source.content if isinstance(block.source, _Source) else None):
            if isinstance(content, list):
                blocks.extend(content)
        if isinstance(block.source, _Source) and block.source.type not in _INLINE:
            raise _refused(f"a source of type {block.source.type[:80]!r} would be fetched by the API")


def _refused(what: str) -> ApiError:
    return ApiError("permission_error", what, status=403)
