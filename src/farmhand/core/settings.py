"""The operator's settings: config.toml, FARMHAND_* variables and flags; later ones override earlier ones.

Standard library only: the action plugin reads them where nothing but Ansible is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from farmhand.core.amounts import DURATION_FORM, duration
from farmhand.core.errors import NotConfigured, Refused, UsageError
from farmhand.core.files import read_most, xdg
from farmhand.core.keys import DEFAULT_SOURCE, redact

if TYPE_CHECKING:
    from pathlib import Path

    from farmhand.core.pots import PotSettings

PREFIX = "FARMHAND_"
HOSTS_FILE = "hosts.json"
#: The values of `fallback`.
FALLBACKS = ("ask", "queue", "subscription", "none")
#: The values of `place`.
PLACE_NAMES = ("farm", "docker", "fargate", "aws-batch")
#: Those of them on AWS.
AWS_PLACES = PLACE_NAMES[2:]
#: The values of `aws_network`.
NETWORKS = ("private", "public")
#: The values of `worker_wall`: see farmhand.cloud.confine.
WALLS = ("unix", "relay")
_CHOICES = {"fallback": ("", *FALLBACKS), "place": PLACE_NAMES, "worker_wall": WALLS, "aws_network": NETWORKS}
#: The provider's own API. On the workstation the checks of a key call it, and what counts tokens for a batch's price.
UPSTREAM = "https://api.anthropic.com"
#: Source: Docker's names of containers, less what is needed for ours.
_DOCKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
#: The units of numbers, by the end of a setting's name; others are in seconds.
_UNITS = {"days": "days", "vcpus": "vCPUs", "usd": "US$", "chars": "characters"}
#: The largest settings file that is read.
_MAX_BYTES = 1024 * 1024
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class Settings(NamedTuple):
    """The settings of config.toml. Each is also a flag, and a variable: its name in capitals with the prefix FARMHAND_.

    `place` is where tasks run: on the farm hosts, in containers on this machine, or in containers on AWS: `fargate` for
    one task, `aws-batch` for a batch. Those on this machine have names that begin with `docker_name`;
    `worker_base_image` is the image that theirs is built on, "" for one from Debian's archive. `worker_wall` is the
    wall around their tasks. `trusted_repos` are the repositories that `farmhand code` runs there unasked: patterns,
    separated by commas.

    `host` "" means the only configured host, `model` "" the default model. `timeout_s` is the task's own limit, 0 for
    the default. `hosts_file` "" means hosts.json beside config.toml. `project_dir` is the checkout with site.yml, ""
    for the one around the working directory, else the one that an installed wheel carries. `fallback` says what happens
    to a task when no farm host answers; "" means ask on a terminal and queue elsewhere. `allow_subscription` permits
    its value `subscription` (read docs/subscription.md first). `patience_s` is how long a batch waits while no farm
    host answers. `confirm_usd` is what a batch may cost without a question, in US$; 0 for no question. `when_spent` is
    what becomes of a task, or of the rest of a batch, for which a budget has no room: see farmhand.core.when_spent.
    Times are in seconds; they may be written as `10m`.

    For `farmhand cost`: `baseline_model` is the model with which the farm's work is compared. `box_usd_month` is the
    monthly cost of each host in US$ (`24`, or by host `farm1=24,farm2=12`). `prices_file` is the operator's own price
    file, "" for prices.toml beside config.toml. `cost_store` is the file with the merged ledgers, "" for the default
    one. `admin_key_source` is the source of the Admin key, "" for none, and `admin_url` the address of the Admin API.

    For AWS (docs/aws.md): `aws_environment` names one set of stacks, `aws_region` "" is boto3's, `aws_profile` is the
    login's, "" for the usual one. `aws_network` is how tasks reach the API. `aws_account` is the only account to be
    used, "" for any; `aws_prices_file` the operator's own prices of AWS; `cloud_max_vcpus` what may run at once there.
    `allow_subscription_cloud` permits a token of the operator's own plan there (read docs/subscription.md first).
    `spot` is whether batches run on capacity that AWS may take back at any time, for less money.

    `otel_endpoint` is the address of the collector to which spans are sent (docs/telemetry.md); "" or `none` for none.
    For `farmhand mcp` (docs/mcp.md): `mcp_max_usd` and `mcp_session_max_usd` are what all sessions of a day and one
    session may spend, in US$, 0 for no limit. `mcp_wait_s` is how long a tool waits for an answer, `mcp_answer_chars`
    how long an answer may be, in characters; a longer one is kept in a file.

    For `farmhand rotate`: `key_max_age_days` is the age from which a key is reported as old, 0 for never.

    `pots` are the tables `[pots.NAME]`, each a key of its own. `pot` is then the one that is used, by default the
    first, and `key_source` is its key source. Without such tables `pot` is "".
    """

    key_source: str = DEFAULT_SOURCE
    pot: str = ""
    place: str = PLACE_NAMES[0]
    host: str = ""
    model: str = ""
    connect_timeout_s: float = 10.0
    timeout_s: float = 0.0
    hosts_file: str = ""
    project_dir: str = ""
    docker_name: str = "farmhand"
    worker_base_image: str = ""
    worker_wall: str = WALLS[0]
    trusted_repos: str = ""
    patience_s: float = 120.0
    when_spent: str = "stop"
    confirm_usd: float = 0.0
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
    aws_environment: str = "prod"
    aws_region: str = ""
    aws_profile: str = ""
    aws_network: str = NETWORKS[0]
    aws_account: str = ""
    aws_prices_file: str = ""
    cloud_max_vcpus: float = 64.0
    allow_subscription_cloud: bool = False
    spot: bool = True
    otel_endpoint: str = ""
    mcp_max_usd: float = 5.0
    mcp_session_max_usd: float = 2.0
    mcp_wait_s: float = 45.0
    mcp_answer_chars: float = 12_000.0
    config_file: str = ""
    pots: tuple[PotSettings, ...] = ()

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
        """Return the path of the operator's own price file, which must exist if it was named. Raise NotConfigured."""
        from pathlib import Path

        if not self.prices_file:
            return Path(self._beside("prices.toml"))
        path = Path(os.path.expanduser(self.prices_file))
        if not path.exists():
            raise NotConfigured(f"the price file {path} does not exist", hint="see prices_file and --prices-file")
        return path

    def _beside(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.config_file), name)


_DEFAULTS = {name: value for name, value in Settings._field_defaults.items() if name not in ("config_file", "pots")}


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
    """Return the identity of these hosts in the spool: the path of their hosts file, or "" for the default one.

    Containers on this machine are `docker:` and their name.
    """
    if conf.place != PLACE_NAMES[0]:
        return f"{conf.place}:{conf.aws_environment if conf.place in AWS_PLACES else conf.docker_name}"
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
    if farm.startswith("docker:"):
        return f"the containers {farm.removeprefix('docker:')}"
    return f"the hosts of {farm or 'the usual hosts.json'}"


def load(config: str | None = None, environ: Mapping[str, str] = os.environ, **flags: Any) -> Settings:
    """Return the effective settings; a flag that is None was not given. Raise NotConfigured, naming the setting."""
    path, asked_for = config_path(config, environ)
    settings = Settings(config_file=path, **_from_file(path, asked_for))
    given = {name: _from_text(name, text) for name in _DEFAULTS if (text := environ.get(PREFIX + name.upper()))}
    for name, value in flags.items():
        flag = f"--{name.removesuffix('_s').replace('_', '-')}"
        if value == "":
            raise UsageError(f"{flag} is empty", hint="leave it out for the default")
        if value is not None:
            given[name] = _checked(name, value, flag, UsageError)
    settings = settings._replace(**given)
    if settings.pots or settings.pot:
        settings = _with_pot(settings, given)
    # The setting `host` is a preference among the farm's hosts.
    return settings if settings.place == PLACE_NAMES[0] or flags.get("host") else settings._replace(host="")


def _with_pot(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Return the settings with their pot. A key source that was `given` by itself is used without any pot."""
    from farmhand.core import pots  # most farms have none

    if "key_source" in given and settings.pots:
        if "pot" in given:
            raise UsageError("a pot and a key source exclude each other", hint="each pot has its own key_source")
        return settings._replace(pots=(), pot="")
    pot = pots.chosen(settings.pots, settings.pot)
    if settings.place not in AWS_PLACES:
        return settings._replace(pot=pot.name, key_source=pot.key_source)
    if "pot" in given:
        what = f"--pot {pot.name}: a place on AWS has one key, that of its secret, and no pots"
        raise Refused(what, hint="leave --pot out, or use --place farm or docker", code="pot_refused")
    return settings._replace(pots=(), pot="", key_source=pot.key_source)


def _from_file(path: str, asked_for: bool) -> dict[str, Any]:
    try:
        text = read_most(path, _MAX_BYTES).decode("utf-8")
        import tomllib  # 5 ms, needed only if there is such a file

        values = tomllib.loads(text)
    except FileNotFoundError:
        if asked_for:
            raise NotConfigured(f"the settings file {path} does not exist", hint="create it or unset it") from None
        return {}
    except OSError as error:
        raise NotConfigured(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise NotConfigured(f"{path}: not TOML: {error}") from None
    tables = values.pop("pots", None)
    for name, value in values.items():
        if name not in _DEFAULTS:
            raise NotConfigured(f"{path}: unknown key {name!r}", hint=f"known: {', '.join(sorted(_DEFAULTS))}")
        values[name] = _checked(name, value, f"{path}: {name}", NotConfigured)
    if tables is not None:
        from farmhand.core import pots

        if "key_source" in values:
            raise NotConfigured(f"{path}: key_source is set beside [pots]", hint="each pot has its own key_source")
        values["pots"] = pots.read(tables, path)
    return values


def _from_text(name: str, text: str) -> Any:
    value: Any = text
    if isinstance(_DEFAULTS[name], bool):
        value = _TRUTH.get(text.lower(), text)
    elif isinstance(_DEFAULTS[name], float):
        with contextlib.suppress(ValueError):
            value = float(text)
    return _checked(name, value, PREFIX + name.upper(), NotConfigured)


def _checked(name: str, value: Any, where: str, kind: type[NotConfigured] | type[UsageError]) -> Any:
    """Return `value` if it has the setting's type and is in its range."""
    default = _DEFAULTS[name]
    if isinstance(default, float):
        if name.endswith("_s") and isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = duration(value)
        unit = _UNITS.get(name.rpartition("_")[2], DURATION_FORM)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise kind(f"{where} is {value!r}, not a number of {unit}")
        least = 1.0 if name in ("connect_timeout_s", "cloud_max_vcpus") else 0.0
        if not least <= value <= 86400:
            raise kind(f"{where} is {value}, not {least:g} to 86400 {unit.partition(',')[0]}")
        return float(value)
    if not isinstance(value, type(default)):
        raise kind(f"{where} is {value!r}, not {'a string' if isinstance(default, str) else 'true or false'}")
    if not value and default and name not in _CHOICES and isinstance(default, str):
        raise kind(f"{where} is empty", hint="leave it out for the default")
    if name in ("admin_url", "upstream_url") and value != default:
        from farmhand.core.addresses import http_parts, is_safe  # see below

        if not (http_parts if name == "upstream_url" else is_safe)(value):
            rule = "an http(s) URL" if name == "upstream_url" else "an https URL, or one of this machine"
            raise kind(f"{where} is {redact(value)!r:.100}, not {rule}")
    if value not in _CHOICES.get(name, (value,)):
        raise kind(f"{where} is {value!r}, not one of {', '.join(filter(None, _CHOICES[name]))}")
    if name == "when_spent":
        from farmhand.core.when_spent import FORM, by_class

        if by_class(value) is None:
            raise kind(f"{where} is {value!r}, not {FORM}")
    if name == "otel_endpoint" and value:
        from farmhand.core.trace_context import traces_url  # it needs urllib, and most calls do not

        try:
            traces_url(value)
        except ValueError as rule:
            raise kind(f"{where} is not {rule}") from None
    if name == "docker_name" and not _DOCKER_NAME.fullmatch(value):
        raise kind(f"{where} is {value!r}, not a name of letters, digits, _ . and -")
    return value
