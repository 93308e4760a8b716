"""The models this API knows, with what each accepts. Source: the provider's model pages, read 2026-11."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Model:
    """What one model takes.

    `sampling`: temperature, top_p and top_k may be set. `prefill`: the last message may be the assistant's.
    `thinking`: accepted values of `thinking.type`; `thinks`: whether it thinks when `thinking` is left out.
    `cache_min`: the shortest prefix, in tokens, that is cached. `token_bytes`: bytes to a token, roughly.
    """

    id: str
    name: str
    created: str
    max_tokens: int
    context: int
    sampling: bool
    prefill: bool
    thinking: frozenset[str]
    thinks: bool
    cache_min: int
    token_bytes: float = 3.1
    lifecycle: Literal["active", "retired"] = "active"


_NEW = frozenset({"adaptive", "disabled"})

MODELS: dict[str, Model] = {
    m.id: m
    for m in (
        Model("claude-haiku-5-5", "Claude Haiku 5.5", "2026-10-07", 128_000, 1_000_000, False, False, _NEW, True, 512),
        Model(
            "claude-sonnet-5-5", "Claude Sonnet 5.5", "2026-09-10", 128_000, 1_000_000, False, False, _NEW, True, 512
        ),
        Model(
            # Always thinks: `disabled` is refused.
            "claude-opus-5-5",
            "Claude Opus 5.5",
            "2026-08-20",
            128_000,
            1_000_000,
            False,
            False,
            frozenset({"adaptive"}),
            True,
            512,
        ),
        Model(
            "claude-haiku-4-5-20251001",
            "Claude Haiku 4.5",
            "2025-10-01",
            64_000,
            200_000,
            True,
            True,
            frozenset({"enabled", "disabled"}),
            False,
            4096,
            4.0,
        ),
    )
}
ALIASES: dict[str, str] = {"claude-haiku-4-5": "claude-haiku-4-5-20251001"}
#: Ids that were valid once. The API answers them exactly as it answers a name it never knew.
RETIRED: frozenset[str] = frozenset({"claude-3-haiku-20240307", "claude-3-5-haiku-20241022", "claude-3-opus-20240229"})


def find(name: str) -> Model | None:
    """The model that `name`, an id or an alias, stands for."""
    return MODELS.get(ALIASES.get(name, name))
