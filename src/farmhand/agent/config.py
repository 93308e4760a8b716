"""The daemon's settings: one TOML file, validated as a whole before use."""

from __future__ import annotations

import os
import ssl
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import msgspec.toml

from farmhand.core.addresses import http_parts
from farmhand.core.errors import NotConfigured
from farmhand.core.prices import PriceTable, price_table
from farmhand.core.rules import MAX_USD, is_budget
from farmhand.core.trace_context import traces_url

Slots = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Days = Annotated[float, msgspec.Meta(gt=0, le=100_000)]
#: The longest path of a Unix socket, and our longest name of one. Source: unix(7).
_SUN_PATH = 107
_LONGEST_SOCKET = "task-full.sock"
#: Settings that name a path, or are "".
_OPTIONAL_PATHS = ("prices_file", "sandbox_dir", "metrics_note")
Seconds = Annotated[float, msgspec.Meta(gt=0, le=366 * 86_400)]


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """All settings of `jada-agent serve`. Times are in seconds.

    `sandbox_dir` has the sockets of the sandboxes, "" being `runtime_dir`. `repositories` allows tasks on repositories,
    whose sandboxes have git. `upstream_url` excludes `/v1`. `ca_file` is a PEM bundle, or "" for the system's.
    `slots_*` limit how many tasks run at once per engine. `sandbox_spares` is the number of idle sandboxes that the cli
    engine keeps ready while it is in use. `idle_s` is how long the API may be silent. `attempts` limits the attempts of
    one task. `network_full` allows tasks that request `network: full`. `budget_day_usd` is what the host may spend per
    day (UTC). The content of ended tasks is kept for `retention_days`, as long as the ledger stays within
    `retention_mb`. Their rows, with usage and cost, are kept for `history_days`. `prices_file` has the operator's own
    prices, which override those that come with the agent. Economy tasks are collected for `economy_linger_s` before
    they are sent together. Their Message Batch is polled at least every `economy_poll_s`. Members of `allowed_groups`
    may use the agent; those of `metrics_groups` may only read status, metrics and charges. `metrics_note` is the file
    in which whoever pushes the metrics says how that goes, "" for none. `credential` says what the clients bring: a
    metered API key (`key`), an access token that is billed like one (`bearer`), or a token of the operator's own plan
    (`plan`), with which only the CLI runs. `otel_endpoint` is the collector to which spans are sent, by OTLP over HTTP:
    an address without `/v1/traces`, "" for none.
    """

    upstream_url: str = "https://api.anthropic.com"
    state_dir: str = "/var/lib/jada-agent"
    runtime_dir: str = "/run/jada-agent"
    sandbox_dir: str = ""
    repositories: bool = False
    ca_file: str = ""
    slots_api: Slots = 32
    slots_cli: Slots = 2
    sandbox_spares: Annotated[int, msgspec.Meta(ge=0, le=64)] = 2
    task_timeout_max_s: Seconds = 3600.0
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=366 * 86_400)] = 30.0
    idle_s: Seconds = 120.0
    attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    network_full: bool = False
    budget_day_usd: Decimal | None = None
    retention_days: Days = 30
    history_days: Days = 400
    retention_mb: Annotated[int, msgspec.Meta(ge=1, le=2**40)] = 2048
    prices_file: str = ""
    economy_linger_s: Seconds = 2.0
    economy_poll_s: Seconds = 60.0
    claude_path: str = "/usr/bin/claude"
    credential: Literal["key", "bearer", "plan"] = "key"
    allowed_groups: tuple[str, ...] = ("farmhand",)
    metrics_groups: tuple[str, ...] = ()
    metrics_note: str = ""
    otel_endpoint: str = ""

    def __post_init__(self) -> None:
        url = http_parts(self.upstream_url)
        if url is None or url.query or url.fragment:
            raise ValueError("upstream_url must be an http(s) URL without query, such as https://api.anthropic.com")
        if url.path.rstrip("/").endswith("/v1"):
            raise ValueError("upstream_url must end before /v1")
        for name in ("state_dir", "runtime_dir", "claude_path", *_OPTIONAL_PATHS):
            path = getattr(self, name)
            if not Path(path).is_absolute() and (path or name not in _OPTIONAL_PATHS):
                raise ValueError(f"{name} must be an absolute path")
            if "\0" in path:
                raise ValueError(f"{name} has a NUL character")
        if len(os.fsencode(f"{self.runtime_dir}/{_LONGEST_SOCKET}")) > _SUN_PATH:
            raise ValueError(
                f"runtime_dir is too long: {_LONGEST_SOCKET} in it is more than a socket's {_SUN_PATH} bytes"
            )
        if self.budget_day_usd is not None and not is_budget(self.budget_day_usd):
            raise ValueError(f"budget_day_usd must be above 0 and at most {MAX_USD}")
        if self.history_days < self.retention_days:
            raise ValueError("history_days must not be less than retention_days")
        if self.ca_file:
            self.ssl_context()
        self.prices()
        self._check_telemetry()

    def _check_telemetry(self) -> None:
        try:
            wanted = traces_url(self.otel_endpoint)
        except ValueError as rule:
            raise ValueError(f"otel_endpoint must be {rule}") from None
        if wanted and find_spec("opentelemetry") is None:
            raise ValueError("otel_endpoint needs OpenTelemetry's SDK: install requirements/otel.txt")

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
        return msgspec.toml.decode(path.read_bytes(), type=Config)
    except OSError as error:
        raise NotConfigured(f"{path}: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise NotConfigured(f"{path}: {error}") from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # ValueError: an integer of more digits than Python converts; tomllib passes it on.
        raise NotConfigured(f"{path}: not TOML: {error}") from None
