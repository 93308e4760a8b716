"""The daemon's settings: one TOML file, checked whole before it is used."""

from __future__ import annotations

import ssl
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from farmhand.core.errors import NotConfigured
from farmhand.core.prices import PriceTable, price_table
from farmhand.core.rules import MAX_USD, is_budget

Slots = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Days = Annotated[float, msgspec.Meta(gt=0, le=100_000)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Every setting of `jada-agent serve`. Times are in seconds.

    `upstream_url` ends before `/v1`. `ca_file` is a PEM bundle, "" for the system's. `slots_*` bound the tasks that
    run at once per engine. `sandbox_spares` sandboxes of the cli engine wait for a task while it is in use.
    `idle_s` is how long the API may fall silent. `attempts` is how often one task is tried. `network_full` allows
    tasks that ask for `network: full`. `budget_day_usd` is what the host may spend in one day (UTC). The content of
    tasks that have ended is kept for `retention_days`, and no longer than it fits into a ledger of `retention_mb`;
    their rows, with usage and cost, for `history_days`. `prices_file` has the operator's own prices, over those
    that come with the agent. Economy tasks are gathered for `economy_linger_s` before they go out together; their
    Message Batch is looked at every `economy_poll_s` at the least often.
    """

    upstream_url: str = "https://api.anthropic.com"
    state_dir: str = "/var/lib/jada-agent"
    runtime_dir: str = "/run/jada-agent"
    ca_file: str = ""
    slots_api: Slots = 32
    slots_cli: Slots = 2
    sandbox_spares: Annotated[int, msgspec.Meta(ge=0, le=64)] = 2
    task_timeout_max_s: Seconds = 3600.0
    drain_s: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    idle_s: Seconds = 120.0
    attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    network_full: bool = False
    budget_day_usd: Decimal | None = None
    retention_days: Days = 30
    history_days: Days = 400
    retention_mb: Annotated[int, msgspec.Meta(ge=1)] = 2048
    prices_file: str = ""
    economy_linger_s: Seconds = 2.0
    economy_poll_s: Seconds = 60.0
    claude_path: str = "/usr/bin/claude"
    allowed_groups: tuple[str, ...] = ("farmhand",)

    def __post_init__(self) -> None:
        url = urlsplit(self.upstream_url)
        if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
            raise ValueError("upstream_url must be an http(s) URL without query, such as https://api.anthropic.com")
        if url.path.rstrip("/").endswith("/v1"):
            raise ValueError("upstream_url must end before /v1")
        for name in ("state_dir", "runtime_dir", "claude_path", "prices_file"):
            path = getattr(self, name)
            if not Path(path).is_absolute() and (path or name != "prices_file"):
                raise ValueError(f"{name} must be an absolute path")
        if self.budget_day_usd is not None and not is_budget(self.budget_day_usd):
            raise ValueError(f"budget_day_usd must be above 0 and at most {MAX_USD}")
        if self.history_days < self.retention_days:
            raise ValueError("history_days must not be less than retention_days")
        if self.ca_file:
            self.ssl_context()
        self.prices()

    def prices(self) -> PriceTable:
        """The prices of requests. Raises ValueError with the one line that says what is wrong in `prices_file`."""
        if not self.prices_file:
            return price_table()
        path = Path(self.prices_file)
        if not path.exists():
            raise ValueError(f"prices_file {path} does not exist")
        try:
            return price_table(path)
        except NotConfigured as error:
            raise ValueError(f"prices_file: {error}") from None

    def ssl_context(self) -> ssl.SSLContext:
        """The TLS settings of the upstream side."""
        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise ValueError(f"ca_file {self.ca_file}: {error.strerror or error}") from None


def load(path: Path) -> Config:
    """The settings in `path`; NotConfigured names the file, the setting and the rule."""
    try:
        text = path.read_text(encoding="utf-8")
        values: dict[str, Any] = tomllib.loads(text)
    except OSError as error:
        raise NotConfigured(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NotConfigured(f"{path}: not TOML: {error}") from None
    try:
        return msgspec.convert(values, Config)
    except (msgspec.ValidationError, ValueError) as error:
        raise NotConfigured(f"{path}: {error}") from None
