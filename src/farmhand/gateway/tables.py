"""The tables of `gateway.toml`, as they are after `farmhand.gateway.config` has checked them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from farmhand.core.files import xdg
from farmhand.core.money import pico
from farmhand.gateway.policy import RESIDENCIES, Rule
from farmhand.gateway.turn import BackendState, Reason, WorkClass

#: The model of each class, where `models` is not given.
_BY_PLAN = {"planning": "opus", "review": "sonnet", "chat": "sonnet"}
_BY_KEY = {"planning": "opus", "quick-edit": "haiku", "agent": "sonnet", "chat": "haiku", "review": "sonnet"}


class LocalServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[local.NAME]`: a model server on this machine.

    `model` is the server's own id, "" for its only one. `context` is in tokens, 0 for what the server says. `auth_env`
    names the variable with the server's key, "" for none. `slots` is how many turns it answers at once.
    """

    url: str
    dialect: Literal["chat", "messages"] = "chat"
    model: str = ""
    context: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    images: Literal["auto", "yes", "no"] = "auto"
    extra_body: dict[str, Any] = {}
    auth_env: str = ""
    mid_system: Literal["merge", "system"] = "merge"
    omit_hosted_tools: bool = False
    slots: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1


#: The most input tokens of a turn on a plan. What is beyond the models' usual context may be billed as extra usage.
PLAN_CONTEXT = 200_000


class SubscriptionTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[subscription]`: the operator's own plan, by the unmodified CLI. docs/gateway.md has the provider's terms.

    `reserve` is the part of a window that is left to interactive sessions. `warm_s` is in seconds.
    """

    enabled: bool = False
    terms_read: str = ""
    auth_env: str = "CLAUDE_CODE_OAUTH_TOKEN"
    cli: str = "claude"
    models: dict[str, str] = msgspec.field(default_factory=lambda: dict(_BY_PLAN))
    reserve: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    allow_overage: bool = False
    queue: Annotated[int, msgspec.Meta(ge=0, le=64)] = 2
    warm_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 600


class MeteredTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[metered]`: the API, by a key: that of the variable `auth_env`, or `key_source` as in config.toml.

    Budgets are US$ as text; a day is a UTC day. `budget_label_usd` has those of labels, such as `project:website`, or
    `project:*` for each other project. `background` pays for a harness's requests for itself, `hosted_tools`
    for tools that the provider runs, `fetch` for what it gets from URLs.
    """

    enabled: bool = False
    auth_env: str = "FARMHAND_GATEWAY_KEY"
    key_source: str = ""
    models: dict[str, str] = msgspec.field(default_factory=lambda: dict(_BY_KEY))
    budget_day_usd: str = ""
    budget_label_usd: dict[str, str] = {}
    max_usd_per_turn: str = "0.50"
    background: bool = False
    hosted_tools: bool = False
    fetch: bool = False
    extra_body: dict[str, Any] = {}
    url: str = "https://api.anthropic.com"

    def model_of(self, work_class: WorkClass) -> str:
        """Return the model for a class: that of `models`, else the shipped one."""
        return self.models.get(work_class, _BY_KEY[work_class])

    @property
    def day_pico(self) -> int | None:
        """Return the budget of a day in pico-dollars, None if it is not set."""
        return pico(Decimal(self.budget_day_usd)) if self.budget_day_usd else None

    def label_picos(self, labels: Mapping[str, str]) -> dict[str, int]:
        """Return the budgets of a day that a turn with these labels has, in pico-dollars, by the label's whole name."""
        found = {}
        for label, value in labels.items():
            given = self.budget_label_usd
            if amount := given.get(f"{label}:{value}") or given.get(f"{label}:*"):
                found[f"{label}:{value}"] = pico(Decimal(amount))
        return found

    @property
    def turn_pico(self) -> int:
        """Return the most that a turn may cost, in pico-dollars."""
        return pico(Decimal(self.max_usd_per_turn))


class Alias(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"work_class": "class"}):
    """One of `[aliases]`: what a client means when it asks for a model of that name: a class, a backend, or both."""

    work_class: WorkClass | None = None
    backend: str | None = None


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"rules": "rule"}):
    """All settings of the gateway. `local` is in the file's order; the first that can takes a turn."""

    listen: str = "127.0.0.1:7345"
    token_file: str = ""
    advice: Literal["error", "message"] = "error"
    log_prompts: bool = False
    local: dict[str, LocalServer] = {}
    subscription: SubscriptionTable = SubscriptionTable()
    metered: MeteredTable = MeteredTable()
    aliases: dict[str, Alias] = {}
    rules: tuple[Rule, ...] = ()

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def token_path(self) -> Path:
        """Return the file with the token that clients send."""
        path = self.token_file or os.path.join(xdg("XDG_STATE_HOME"), "farmhand", "gateway.token")
        return Path(os.path.expanduser(path))

    def closed(self) -> tuple[BackendState, ...]:
        """Return the states of the residencies that are off, so that advice and `explain` name them."""
        off = [name for name in RESIDENCIES[1:] if not getattr(self, name).enabled]
        return tuple(BackendState(name=name, residency=name, closed=Reason("off", "off")) for name in off)
