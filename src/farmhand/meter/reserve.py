"""The most that a request may cost: what is reserved of the budgets before it is sent.

A tokenizer makes no more tokens of a text than it has bytes, and no lower bound is sure: rare scripts, control
characters and letters in rare order come to a token a byte in ASCII as well. English text has about four bytes to a
token, so this reserves four times too much. It is only a reservation; and where it does not fit, the API is asked to
count, which is free. The JSON around a text is more bytes than the tokens that frame it.
"""

from __future__ import annotations

from collections.abc import Callable

from farmhand.core.task import Usage
from farmhand.meter.policy import MessageRequest

#: Above what the API adds by itself, with tools 346 tokens and more with newer models. Source: its tool use page.
_ADDED_TOKENS = 1000
#: The API's count is its own estimate, off by "a small amount". Source: its token counting page, read 2026-11-28.
_COUNT_MARGIN = 20
#: A workspace may have all its requests computed in one country, for 1.1 times the price. Source: its pricing page.
_GEO_TENTHS = 11


def cost(request: MessageRequest, price: Callable[[Usage], int | None], counted: int | None = None) -> int | None:
    """Pico-dollars of `request` at most, None where `price` or its tokens are not known.

    `price` gives the pico-dollars of a usage: it decides by the most tokens whether the prompt is a long one.
    `counted` are the tokens that the API counts; 0 gives what the answer alone may cost.
    """
    tokens = request.tokens if counted is None else counted + counted // _COUNT_MARGIN
    if tokens is None:
        return None
    tokens += _ADDED_TOKENS if counted != 0 else 0
    kinds = [Usage(input_tokens=tokens, output_tokens=request.max_tokens, requests=1)]
    if request.written:
        # All of it may be written to the cache, and none: what is dearer is the table's to say.
        kinds.append(
            Usage(
                cache_creation_input_tokens=tokens,
                cache_creation_1h_input_tokens=tokens if request.written == "1h" else 0,
                output_tokens=request.max_tokens,
                requests=1,
            )
        )
    costs = [price(usage) for usage in kinds]
    known = [one for one in costs if one is not None]
    return -(-max(known) * _GEO_TENTHS // 10) if len(known) == len(costs) else None
