"""The daemon's settings: one TOML file, validated as a whole before use."""

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
    """All settings of `jada-agent serve`. Times are in seconds.

    `upstream_url` excludes `/v1`. `ca_file` is a PEM bundle, or "" for the system's. `slots_*` limit how many tasks run
    at once per engine. `sandbox_spares` is the number of idle sandboxes that the cli engine keeps ready while it is in
    use. `idle_s` is how long the API may be silent. `attempts` limits the attempts of one task. `network_full` allows
    tasks that request `network: full`. `budget_day_usd` is what the host may spend per day (UTC). The content of ended
    tasks is kept for `retention_days`, as long as the ledger stays within `retention_mb`. Their rows, with usage and
    cost, are kept for `history_days`. `prices_file` has the operator's own prices, which override those that come with
    the agent. Economy tasks are collected for `economy_linger_s` before they are sent together. Their Message Batch is
    polled at least every `economy_poll_s`.
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
        """Return the price table. Raise ValueError with a one-line message if `prices_file` is wrong."""
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
        """Return the TLS context for upstream connections. Raise ValueError if `ca_file` cannot be read."""
        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise ValueError(f"ca_file {self.ca_file}: {error.strerror or error}") from None


def load(path: Path) -> Config:
    """Read the settings in `path`. Raise NotConfigured with the file, the setting and the rule."""
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
