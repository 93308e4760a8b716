"""The operator's settings: config.toml, FARMHAND_* variables and flags; later ones override earlier ones.

Standard library only: the action plugin reads them where nothing but Ansible is installed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from farmhand.core.errors import NotConfigured, UsageError
from farmhand.core.files import xdg
from farmhand.core.keys import DEFAULT_SOURCE

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "FARMHAND_"
HOSTS_FILE = "hosts.json"
#: The values of `fallback`.
FALLBACKS = ("ask", "queue", "subscription", "none")
#: The provider's own API. On the workstation only `farmhand doctor` calls it, to check that the key is accepted.
UPSTREAM = "https://api.anthropic.com"
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class Settings(NamedTuple):
    """The settings of config.toml. Each is also a flag, and a variable: its name in capitals with the prefix FARMHAND_.

    `host` "" means the only configured host, `model` "" the default model. `timeout_s` is the task's own limit, 0 for
    the default. `hosts_file` "" means hosts.json beside config.toml. `project_dir` is the checkout with site.yml, ""
    for the one around the working directory. `fallback` says what happens to a task when no farm host answers; "" means
    ask on a terminal and queue elsewhere. `allow_subscription` permits its value `subscription` (read
    docs/subscription.md first). `patience_s` is how long a batch waits while no farm host answers. Times are in
    seconds.

    For `farmhand cost`: `baseline_model` is the model with which the farm's work is compared. `box_usd_month` is the
    monthly cost of each host in US$ (`24`, or by host `farm1=24,farm2=12`). `prices_file` is the operator's own price
    file, "" for prices.toml beside config.toml. `cost_store` is the file with the merged ledgers, "" for the default
    one. `admin_key_source` is the source of the Admin key, "" for none, and `admin_url` the address of the Admin API.

    For `farmhand rotate`: `key_max_age_days` is the age from which a key is reported as old, 0 for never.
    """

    key_source: str = DEFAULT_SOURCE
    host: str = ""
    model: str = ""
    connect_timeout_s: float = 10.0
    timeout_s: float = 0.0
    hosts_file: str = ""
    project_dir: str = ""
    patience_s: float = 120.0
    baseline_model: str = "sonnet"
    box_usd_month: str = ""
    prices_file: str = ""
    cost_store: str = ""
    admin_key_source: str = ""
    admin_url: str = "https://api.anthropic.com"
    fallback: str = ""
    allow_subscription: bool = False
    upstream_url: str = UPSTREAM
    key_max_age_days: float = 90.0
    config_file: str = ""

    @property
    def hosts_path(self) -> Path:
        """Return the path of the hosts file."""
        from pathlib import Path  # 7 ms, which claude-cheap avoids

        return Path(self.hosts_name)

    @property
    def hosts_name(self) -> str:
        """Return the name of the hosts file."""
        return os.path.expanduser(self.hosts_file) if self.hosts_file else self._beside(HOSTS_FILE)

    @property
    def prices_path(self) -> Path:
        """Return the path of the operator's own price file, which need not exist."""
        from pathlib import Path

        return Path(os.path.expanduser(self.prices_file) if self.prices_file else self._beside("prices.toml"))

    def _beside(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.config_file), name)


_DEFAULTS = {name: value for name, value in Settings._field_defaults.items() if name != "config_file"}


def config_path(flag: str | None, environ: Mapping[str, str]) -> tuple[str, bool]:
    """Return the path of the settings file, and whether it was requested and so must exist."""
    named = flag or environ.get(PREFIX + "CONFIG")
    if named:
        return os.path.expanduser(named), True
    return os.path.join(xdg("XDG_CONFIG_HOME", environ), "farmhand", "config.toml"), False


def spool_name(environ: Mapping[str, str] = os.environ) -> str:
    """Return the path of the spool. All farms share one, so that all waiting tasks are listed together."""
    return os.path.join(xdg("XDG_STATE_HOME", environ), "farmhand", "spool")


def farm_name(conf: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """Return the identity of these hosts in the spool: the path of their hosts file, or "" for the default one."""
    path = os.path.join(os.getcwd(), conf.hosts_name)
    usual = os.path.join(xdg("XDG_CONFIG_HOME", environ), "farmhand", HOSTS_FILE)
    return "" if path == usual else path


def old_spool_name(conf: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """Return the spool path that versions up to 0.1 used for a farm other than the default; "" for the default."""
    farm = farm_name(conf, environ)
    return f"{spool_name(environ)}-{hashlib.sha256(os.fsencode(farm)).hexdigest()[:8]}" if farm else ""


def hosts_of(farm: str) -> str:
    """Describe the hosts that a task waits for, given the spool's entry: a `farm_name` or an `old_spool_name`."""
    if os.path.isdir(farm):
        return f"a hosts file that an older version did not note, in {farm}"
    return f"the hosts of {farm or 'the usual hosts.json'}"


def load(config: str | None = None, environ: Mapping[str, str] = os.environ, **flags: Any) -> Settings:
    """Return the effective settings; a flag that is None was not given. Raise NotConfigured, naming the setting."""
    path, asked_for = config_path(config, environ)
    settings = Settings(config_file=path, **_from_file(path, asked_for))
    for name in _DEFAULTS:
        text = environ.get(PREFIX + name.upper())
        if text:
            settings = settings._replace(**{name: _from_text(name, text)})
    for name, value in flags.items():
        if value is None:
            continue
        flag = f"--{name.removesuffix('_s').replace('_', '-')}"
        if value == "":
            raise UsageError(f"{flag} is empty", hint="leave it out for the default")
        settings = settings._replace(**{name: _checked(name, value, flag, UsageError)})
    return settings


def _from_file(path: str, asked_for: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            import tomllib  # 5 ms, needed only if there is such a file

            values = tomllib.load(file)
    except FileNotFoundError:
        if asked_for:
            raise NotConfigured(f"the settings file {path} does not exist", hint="create it or unset it") from None
        return {}
    except OSError as error:
        raise NotConfigured(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise NotConfigured(f"{path}: not TOML: {error}") from None
    for name, value in values.items():
        if name not in _DEFAULTS:
            raise NotConfigured(f"{path}: unknown key {name!r}", hint=f"known: {', '.join(sorted(_DEFAULTS))}")
        values[name] = _checked(name, value, f"{path}: {name}", NotConfigured)
    return values


def _from_text(name: str, text: str) -> Any:
    where = PREFIX + name.upper()
    if isinstance(_DEFAULTS[name], bool):
        if text.lower() not in _TRUTH:
            raise NotConfigured(f"{where} is {text!r}, not true or false")
        return _TRUTH[text.lower()]
    if isinstance(_DEFAULTS[name], float):
        try:
            return _checked(name, float(text), where, NotConfigured)
        except ValueError:
            raise NotConfigured(f"{where} is {text!r}, not a number of {_unit(name)}") from None
    return _checked(name, text, where, NotConfigured)


def _checked(name: str, value: Any, where: str, kind: type[NotConfigured] | type[UsageError]) -> Any:
    """Return `value` if it has the setting's type and is in its range."""
    if isinstance(_DEFAULTS[name], str):
        if not isinstance(value, str):
            raise kind(f"{where} is {value!r}, not a string")
        if name == "fallback" and value not in ("", *FALLBACKS):
            raise kind(f"{where} is {value!r}, not one of {', '.join(FALLBACKS)}")
        return value
    if isinstance(_DEFAULTS[name], bool):
        if not isinstance(value, bool):
            raise kind(f"{where} is {value!r}, not true or false")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise kind(f"{where} is {value!r}, not a number of {_unit(name)}")
    least = 1.0 if name == "connect_timeout_s" else 0.0
    if not least <= value <= 86400:
        raise kind(f"{where} is {value}, not {least:g} to 86400 {_unit(name)}")
    return float(value)


def _unit(name: str) -> str:
    return "days" if name.endswith("_days") else "seconds"
