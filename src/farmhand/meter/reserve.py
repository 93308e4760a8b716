"""The worst-case cost of a request, which is reserved in the budgets before it is sent.

A tokenizer makes at most one token per byte, and no smaller bound is certain: rare scripts reach it. English text has
about four bytes per token; if so high a reservation does not fit, the API counts the tokens, which is free.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from farmhand.core.task import Usage
from farmhand.meter.grants import MessageRequest

#: Above what the API adds itself: 346 tokens with tools, more with newer models. Source: its tool use page.
_ADDED_TOKENS = 1000
#: What is added to a count, as its divisor. The API's count is an estimate, off by "a small amount". Source: its token
#: counting page, read 2026-11-28.
COUNT_MARGIN = 20


def cost(request: MessageRequest, price: Callable[[Usage], int | None], counted: int | None = None) -> int | None:
    """Return the worst-case cost of `request` in pico-dollars, or None if `price` or the tokens are unknown.

    `price` returns the pico-dollars of a usage under the dearest terms that a workspace may have set; it decides by the
    highest token count whether the prompt is a long one.
    `counted` are the tokens that the API counted; 0 gives the cost of the answer alone.
    """
    tokens = request.tokens if counted is None else counted + counted // COUNT_MARGIN
    if tokens is None:
        return None
    tokens += _ADDED_TOKENS if counted != 0 else 0
    usages = [Usage(input_tokens=tokens, output_tokens=request.max_tokens)]
    if request.written:
        # All or none of it may be written to the cache; the price table decides which is dearer.
        hour = tokens if request.written == "1h" else 0
        written = Usage(output_tokens=request.max_tokens)
        written.cache_creation_input_tokens, written.cache_creation_1h_input_tokens = tokens, hour
        usages.append(written)
    costs = [price(usage) for usage in usages]
    known = [one for one in costs if one is not None]
    return max(known) if len(known) == len(costs) else None


def longest(
    request: MessageRequest, price: Callable[[Usage], int | None], room: int, counted: int | None = None
) -> int:
    """Return the longest answer of `request`, in tokens, that costs at most `room` pico-dollars; 0 if none does."""
    low, high = 0, request.max_tokens
    while low < high:
        middle = (low + high + 1) // 2
        most = cost(replace(request, max_tokens=middle), price, counted)
        low, high = (middle, high) if most is not None and most <= room else (low, middle - 1)
    return low
