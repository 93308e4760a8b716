"""What becomes of a Chat or Responses request on its way to the Messages API: the rows that differ from `carries`.

All other rows are those of `carries`. Here nothing is open: the API refuses what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from farmhand.gateway.carries import TABLES, Table, table

#: What Chat Completions has and the Messages API has not.
_NOT_THERE = frozenset({"frequency_penalty", "logit_bias", "logprobs", "presence_penalty", "top_logprobs"})

_CHAT = TABLES["chat.request"]
PAID_TABLES: Mapping[str, Table] = {
    **{name: rows for name, rows in TABLES.items() if not name.startswith("messages.")},
    "chat.request": msgspec.structs.replace(
        _CHAT,
        carried=_CHAT.carried - _NOT_THERE - {"reasoning_effort", "seed"},
        advisory=_CHAT.advisory | {"reasoning_effort", "seed"},
        refused={
            **_CHAT.refused,
            **dict.fromkeys(_NOT_THERE, ("something that the Messages API has not", "leave it out")),
        },
        harmless={**_CHAT.harmless, "frequency_penalty": (0,), "presence_penalty": (0,), "top_logprobs": (0,)},
        open=False,
    ),
    "chat.message": msgspec.structs.replace(
        TABLES["chat.message"],
        carried=TABLES["chat.message"].carried - {"name"},
        # Another model's thinking, under the names that local servers have for it, is not replayed.
        advisory=frozenset({"name", "reasoning", "reasoning_content", "reasoning_details"}),
        open=False,
    ),
    "chat.image": table("url", "detail"),
    "responses.input_image": msgspec.structs.replace(
        TABLES["responses.input_image"],
        carried=TABLES["responses.input_image"].carried - {"detail"},
        advisory=TABLES["responses.input_image"].advisory | {"detail"},
    ),
}
