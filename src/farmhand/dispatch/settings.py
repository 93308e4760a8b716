"""The operator's settings: config.toml, FARMHAND_* variables and flags, the later winning over the earlier.

Standard library only: the action plugin reads them where nothing but Ansible is installed.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from farmhand.errors import NotConfigured, UsageError
from farmhand.wire.keysource import DEFAULT_SOURCE

PREFIX = "FARMHAND_"
HOSTS_FILE = "hosts.json"
#: What `fallback` may say.
FALLBACKS = ("ask", "queue", "subscription", "none")
#: The provider's own API. Only `farmhand doctor` speaks to it from the workstation, to see whether the key is accepted.
UPSTREAM = "https://api.anthropic.com"
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What config.toml may say; every name is also a flag and, in capitals with FARMHAND_ in front, a variable.

    `host` "" stands for the only host there is, `model` "" for the default model. `timeout_s` is the task's own limit,
    0 for the default. `hosts_file` "" stands for hosts.json beside config.toml. `project_dir` is the checkout with
    site.yml, "" for the one around the working directory. `fallback` says what becomes of a task when no farm host
    answers, "" standing for ask on a terminal and queue elsewhere; `allow_subscription` turns its subscription on (read
    docs/subscription.md first). Times are in seconds.

    Of `farmhand cost`: `baseline_model` is what the farm's work is compared with, `box_usd_month` what each host costs
    a month in US$ (`24`, or by host `farm1=24,farm2=12`), `prices_file` the operator's own prices, "" for prices.toml
    beside config.toml, `cost_store` the file that keeps the merged ledgers, "" for the usual one. `admin_key_source`
    says where the Admin key is, "" for none, and `admin_url` where the Admin API is.
    """

    key_source: str = DEFAULT_SOURCE
    host: str = ""
    model: str = ""
    connect_timeout_s: float = 10.0
    timeout_s: float = 0.0
    hosts_file: str = ""
    project_dir: str = ""
    baseline_model: str = "sonnet"
    box_usd_month: str = ""
    prices_file: str = ""
    cost_store: str = ""
    admin_key_source: str = ""
    admin_url: str = "https://api.anthropic.com"
    fallback: str = ""
    allow_subscription: bool = False
    upstream_url: str = UPSTREAM
    config_file: Path = Path()

    @property
    def hosts_path(self) -> Path:
        """The file with the farm hosts."""
        return Path(self.hosts_file).expanduser() if self.hosts_file else self.config_file.parent / HOSTS_FILE

    @property
    def prices_path(self) -> Path:
        """The file with the operator's own prices; it need not be there."""
        return Path(self.prices_file).expanduser() if self.prices_file else self.config_file.parent / "prices.toml"


_FIELDS = {field.name: field for field in fields(Settings) if field.name != "config_file"}


def config_path(flag: str | None, environ: Mapping[str, str]) -> tuple[Path, bool]:
    """The settings file, and whether it was asked for and so must exist."""
    named = flag or environ.get(PREFIX + "CONFIG")
    if named:
        return Path(named).expanduser(), True
    base = environ.get("XDG_CONFIG_HOME", "")
    directory = Path(base) if base.startswith("/") else Path("~/.config").expanduser()
    return directory / "farmhand" / "config.toml", False


def load(config: str | None = None, environ: Mapping[str, str] = os.environ, **flags: Any) -> Settings:
    """The settings in force; a flag that is None was not given. NotConfigured names file or variable, and key."""
    path, asked_for = config_path(config, environ)
    settings = Settings(config_file=path, **_from_file(path, asked_for))
    for name in _FIELDS:
        text = environ.get(PREFIX + name.upper())
        if text:
            settings = replace(settings, **{name: _from_text(name, text)})
    for name, value in flags.items():
        if value is None:
            continue
        flag = f"--{name.removesuffix('_s').replace('_', '-')}"
        if value == "":
            raise UsageError(f"{flag} is empty", hint="leave it out for the default")
        settings = replace(settings, **{name: _checked(name, value, flag, UsageError)})
    return settings


def _from_file(path: Path, asked_for: bool) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if asked_for:
            raise NotConfigured(f"the settings file {path} does not exist", hint="create it or unset it") from None
        return {}
    except OSError as error:
        raise NotConfigured(f"the settings file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise NotConfigured(f"{path}: not TOML: {error}") from None
    for name, value in values.items():
        if name not in _FIELDS:
            raise NotConfigured(f"{path}: unknown key {name!r}", hint=f"known: {', '.join(sorted(_FIELDS))}")
        values[name] = _checked(name, value, f"{path}: {name}", NotConfigured)
    return values


def _from_text(name: str, text: str) -> Any:
    where = PREFIX + name.upper()
    if isinstance(_FIELDS[name].default, bool):
        if text.lower() not in _TRUTH:
            raise NotConfigured(f"{where} is {text!r}, not true or false")
        return _TRUTH[text.lower()]
    if isinstance(_FIELDS[name].default, float):
        try:
            return _checked(name, float(text), where, NotConfigured)
        except ValueError:
            raise NotConfigured(f"{where} is {text!r}, not a number of seconds") from None
    return _checked(name, text, where, NotConfigured)


def _checked(name: str, value: Any, where: str, kind: type[NotConfigured] | type[UsageError]) -> Any:
    """`value` if it is of the setting's kind and in its range."""
    if isinstance(_FIELDS[name].default, str):
        if not isinstance(value, str):
            raise kind(f"{where} is {value!r}, not a string")
        if name == "fallback" and value not in ("", *FALLBACKS):
            raise kind(f"{where} is {value!r}, not one of {', '.join(FALLBACKS)}")
        return value
    if isinstance(_FIELDS[name].default, bool):
        if not isinstance(value, bool):
            raise kind(f"{where} is {value!r}, not true or false")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise kind(f"{where} is {value!r}, not a number of seconds")
    least = 1.0 if name == "connect_timeout_s" else 0.0
    if not least <= value <= 86400:
        raise kind(f"{where} is {value}, not {least:g} to 86400 seconds")
    return float(value)
