"""The operator's settings: config.toml, FARMHAND_* variables and flags, the later winning over the earlier.

Standard library only: the action plugin reads them where nothing but Ansible is installed.
"""

from __future__ import annotations

import os
import re

from farmhand.dispatch.record import Record
from farmhand.errors import NotConfigured, UsageError
from farmhand.wire.keys import DEFAULT_SOURCE

TYPE_CHECKING = False  # as in farmhand.wire.http1
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

PREFIX = "FARMHAND_"
#: The lines that most settings files have nothing but; what is in them means the same to tomllib, which costs 20 ms.
_PLAIN = re.compile(
    r"""[ \t]*(?:([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"([^"\\\x00-\x1f\x7f]*)"|(0|[1-9][0-9]*))[ \t]*)?"""
    r"(?:\#[^\x00-\x08\x0a-\x1f\x7f]*)?"
)


class Settings(Record):
    """What config.toml may say; every name is also a flag and, in capitals with FARMHAND_ in front, a variable.

    `host` "" stands for the only host there is, `model` "" for the default model. `timeout_s` is the task's own limit,
    0 for the default. `hosts_file` "" stands for hosts.json beside config.toml. `project_dir` is the checkout with
    site.yml, "" for the one around the working directory. Times are in seconds.
    """

    key_source: str = DEFAULT_SOURCE
    host: str = ""
    model: str = ""
    connect_timeout_s: float = 10.0
    timeout_s: float = 0.0
    hosts_file: str = ""
    project_dir: str = ""
    config_name: str = ""

    @property
    def config_file(self) -> Path:
        """The settings file, whether there is one or not."""
        from pathlib import Path

        return Path(self.config_name)

    @property
    def hosts_path(self) -> Path:
        """The file with the farm hosts."""
        from pathlib import Path

        return Path(self.hosts_name)

    @property
    def hosts_name(self) -> str:
        """Its name."""
        if self.hosts_file:
            return os.path.expanduser(self.hosts_file)
        return os.path.join(os.path.dirname(self.config_name), "hosts.json")


_DEFAULTS: dict[str, Any] = {name: getattr(Settings, name) for name in Settings.names() if name != "config_name"}


def config_path(flag: str | None, environ: Mapping[str, str]) -> tuple[str, bool]:
    """The settings file, and whether it was asked for and so must exist."""
    named = flag or environ.get(PREFIX + "CONFIG")
    if named:
        return os.path.expanduser(named), True
    base = environ.get("XDG_CONFIG_HOME", "")
    directory = base if base.startswith("/") else os.path.expanduser("~/.config")
    return os.path.join(directory, "farmhand", "config.toml"), False


def load(config: str | None = None, environ: Mapping[str, str] = os.environ, **flags: Any) -> Settings:
    """The settings in force; a flag that is None was not given. NotConfigured names file or variable, and key."""
    path, asked_for = config_path(config, environ)
    settings = Settings(config_name=path, **_from_file(path, asked_for))
    for name in _DEFAULTS:
        text = environ.get(PREFIX + name.upper())
        if text:
            settings = settings.replaced(**{name: _from_text(name, text)})
    for name, value in flags.items():
        if value is None:
            continue
        flag = f"--{name.removesuffix('_s').replace('_', '-')}"
        if value == "":
            raise UsageError(f"{flag} is empty", hint="leave it out for the default")
        settings = settings.replaced(**{name: _checked(name, value, flag, UsageError)})
    return settings


def parse(text: str) -> dict[str, Any]:
    """The values of a TOML document. Raises ValueError."""
    values: dict[str, Any] = {}
    for line in text.replace("\r\n", "\n").split("\n"):
        match = _PLAIN.fullmatch(line)
        if match is None or match[1] in values:
            break
        if match[1] is not None:
            values[match[1]] = int(match[3]) if match[2] is None else match[2]
    else:
        return values
    import tomllib

    return tomllib.loads(text)


def _from_file(path: str, asked_for: bool) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            values = parse(file.read())
    except FileNotFoundError:
        if asked_for:
            raise NotConfigured(f"the settings file {path} does not exist", hint="create it or unset it") from None
        return {}
    except OSError as error:
        raise NotConfigured(f"the settings file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise NotConfigured(f"{path}: not TOML: {error}") from None
    for name, value in values.items():
        if name not in _DEFAULTS:
            raise NotConfigured(f"{path}: unknown key {name!r}", hint=f"known: {', '.join(sorted(_DEFAULTS))}")
        values[name] = _checked(name, value, f"{path}: {name}", NotConfigured)
    return values


def _from_text(name: str, text: str) -> Any:
    where = PREFIX + name.upper()
    if isinstance(_DEFAULTS[name], float):
        try:
            return _checked(name, float(text), where, NotConfigured)
        except ValueError:
            raise NotConfigured(f"{where} is {text!r}, not a number of seconds") from None
    return text


def _checked(name: str, value: Any, where: str, kind: type[NotConfigured] | type[UsageError]) -> Any:
    """`value` if it is of the setting's kind and in its range."""
    if isinstance(_DEFAULTS[name], str):
        if not isinstance(value, str):
            raise kind(f"{where} is {value!r}, not a string")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise kind(f"{where} is {value!r}, not a number of seconds")
    least = 1.0 if name == "connect_timeout_s" else 0.0
    if not least <= value <= 86400:
        raise kind(f"{where} is {value}, not {least:g} to 86400 seconds")
    return float(value)
