"""`gateway.toml`: the operator's settings of the gateway, checked as a whole before anything listens.

A missing file is the shipped default: it advises and defers, never spends and never draws on the plan. An error is one
line that names file, table and key: exit 3, or 5 where a policy refuses what is asked for.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

import msgspec

from farmhand.core.addresses import http_parts
from farmhand.core.decoding import shown
from farmhand.core.errors import FarmhandError, NotConfigured, Refused
from farmhand.core.files import xdg
from farmhand.core.keys import redact
from farmhand.core.money import pico
from farmhand.core.rules import MAX_USD, is_budget
from farmhand.gateway.labels import HEADERS, NAME
from farmhand.gateway.policy import LOCAL, Rule
from farmhand.gateway.tables import Alias, GatewayConfig, LocalServer, MeteredTable, SubscriptionTable
from farmhand.gateway.turn import TEXT_CLASSES, WorkClass

CLASSES: tuple[WorkClass, ...] = get_args(WorkClass)
__all__ = ["CLASSES", "GatewayConfig", "LocalServer", "WorkClass", "default_path", "hard_texts", "load", "parse"]
_MOST_BYTES = 1024 * 1024
#: What a body of ours decides; `extra_body` adds to it and cannot replace it.
_OURS = frozenset({"model", "messages", "stream", "tools"})
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_KEY_SOURCE = re.compile(r"(file|env|keyring|command|secretsmanager):.+")
#: A label that has a budget; `*` is each that has none of its own.
_LABEL = re.compile(rf"({'|'.join(HEADERS)}):({NAME}|\*)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<key>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
#: What the guard answers as a request's Host; other spellings of loopback would listen for nobody.
_SERVED = ("127.0.0.1", "localhost", "::1")
_SERVED_HINT = "only 127.0.0.1, localhost and [::1] are served"
_TABLES = ("local", "subscription", "metered", "aliases", "rule")
#: Models that an Ollama on this machine passes on to its maker's servers, such as `gpt-oss:120b-cloud`.
_ELSEWHERE = re.compile(r".*[:-]cloud")


class _Problem(Exception):
    """What is wrong with a table: the key ("" for the table), the words, a hint, and whether policy refuses it."""

    def __init__(self, key: str, words: str, hint: str = "", *, policy: bool = False) -> None:
        super().__init__(words)
        self.key, self.words, self.hint, self.policy = key, words, hint, policy


def default_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return `$XDG_CONFIG_HOME/farmhand/gateway.toml`, or the same below ~/.config."""
    return Path(xdg("XDG_CONFIG_HOME", environ), "farmhand", "gateway.toml")


def load(path: Path | None = None) -> GatewayConfig:
    """Return the settings in `path`, or the shipped default if there is no such file.

    Raise NotConfigured (exit 3), or Refused (exit 5) where policy says no.
    """
    path = default_path() if path is None else path
    content = _content(path)
    if content is None:
        return parse("")
    try:
        return parse(content.decode(), shown(path))
    except UnicodeDecodeError:
        raise NotConfigured(f"{shown(path)}: not UTF-8") from None


def parse(text: str, where: str = "gateway.toml") -> GatewayConfig:
    """Return the settings in the text of a file. Raise NotConfigured or Refused, with `where` in the message."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotConfigured(f"{where}: not TOML: {redact(str(error))}") from None
    table = ""
    try:
        head = {key: raw.pop(key) for key in list(raw) if key not in _TABLES}
        config = _typed(head, GatewayConfig)
        _check_head(config)
        local: dict[str, LocalServer] = {}
        for name, value in _named(raw, "local"):
            table = f"[local.{name}] "
            local[name] = _checked_server(name, value)
            url, (host, port) = urlsplit(local[name].url), config.address
            if url.port == port and (url.hostname == host or "localhost" in (url.hostname, host)):
                raise _Problem("url", "is the gateway itself", "give the address of the model server")
        table = "[subscription] "
        subscription = _checked_subscription(raw.get("subscription", {}))
        table = "[metered] "
        metered = _checked_metered(raw.get("metered", {}))
        backends = {"local", *(LOCAL + name for name in local)}
        enabled = {"subscription": subscription.enabled, "metered": metered.enabled}
        table, aliases = "", dict(_shipped()[1])
        for name, value in _named(raw, "aliases"):
            table = f"[aliases] {name} "
            aliases[name] = _checked_alias(name, value, backends - {"local"}, enabled)
        table = ""
        rules = _shipped()[0]
        if "rule" in raw:
            rules = ()
            for number, value in enumerate(_list_of_tables(raw["rule"]), 1):
                table = f"[[rule]] {number} "
                rules += (_checked_rule(value, backends, enabled),)
        table = ""
    except _Problem as problem:
        kind: type[FarmhandError] = Refused if problem.policy else NotConfigured
        at = f"{where}: {table}{problem.key}".rstrip()
        raise kind(redact(f"{at}: {problem.words}"), hint=redact(problem.hint)) from None
    return msgspec.structs.replace(
        config, local=local, subscription=subscription, metered=metered, aliases=aliases, rules=rules
    )


def _content(path: Path) -> bytes | None:
    """Return the bytes of a file that only its owner can read or change; None if there is none."""
    where = shown(path)
    try:
        # Without O_NONBLOCK a pipe of that name would stop the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotConfigured(f"{where}: cannot be read: {error.strerror}") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise NotConfigured(f"{where}: not a file")
        if about.st_uid != os.geteuid():
            raise NotConfigured(f"{where}: belongs to user {about.st_uid}, not to you", hint="make a file of your own")
        if about.st_mode & 0o177:
            mode = stat.S_IMODE(about.st_mode)
            raise NotConfigured(f"{where}: mode {mode:04o} lets others at it", hint=f"chmod 600 {where}")
        content = os.read(descriptor, _MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > _MOST_BYTES:
        raise NotConfigured(f"{where}: larger than {_MOST_BYTES} bytes")
    return content


@cache
def _shipped() -> tuple[tuple[Rule, ...], dict[str, Alias]]:
    """Return the rules and aliases that ship with the gateway."""
    raw = tomllib.loads(files("farmhand.gateway").joinpath("policy.toml").read_text("utf-8"))
    return msgspec.convert(raw["rule"], tuple[Rule, ...]), msgspec.convert(raw["aliases"], dict[str, Alias])


@cache
def hard_texts() -> dict[str, str]:
    """Return what each hard constraint says, by its name: H1 to H6."""
    raw = tomllib.loads(files("farmhand.gateway").joinpath("policy.toml").read_text("utf-8"))
    return msgspec.convert(raw["hard"], dict[str, str])


T = TypeVar("T", bound=msgspec.Struct)


def _typed(value: Any, kind: type[T]) -> T:
    """Return a table as its type. Raise _Problem with the key, and what would be right."""
    if not isinstance(value, dict):
        raise _Problem("", f"is {_a(value)}, not a table")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        if unknown := _UNKNOWN.match(text):
            raise _Problem(unknown[1], "unknown key", f"known: {', '.join(sorted(known))}") from None
        if missing := _MISSING.match(text):
            raise _Problem(missing[1], "missing") from None
        match = _AT.fullmatch(text)
        what, key = (match["what"], match["key"] or "") if match else (text, "")
        field = known.get(re.split(r"[.\[]", key)[0])
        choices = _choices(field.type) if field is not None else []
        raise _Problem(key, what[:1].lower() + what[1:], f"one of {', '.join(choices)}" if choices else "") from None


def _choices(kind: Any) -> list[str]:
    """Return the words that a type allows, also as one of a list or where nothing else is given."""
    parts = get_args(kind)
    return [part for part in parts if isinstance(part, str)] or [word for part in parts for word in _choices(part)]


def _a(value: Any) -> str:
    names = {str: "a text", bool: "true or false", int: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), "something else")


def _named(raw: dict[str, Any], table: str) -> Iterable[tuple[str, Any]]:
    """Yield the entries of a table of names."""
    entries = raw.get(table, {})
    if not isinstance(entries, dict):
        raise _Problem(table, f"is {_a(entries)}, not a table")
    for name in entries:
        if not _NAME.fullmatch(name):
            raise _Problem(f"[{table}] {name[:80]!r}", "not a name of a-z 0-9 . _ -, 63 at the most")
    return entries.items()


def _list_of_tables(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _Problem("rule", f"is {_a(value)}, not a list of tables", "write [[rule]]")
    return value


def _check_head(config: GatewayConfig) -> None:
    if config.log_prompts:
        raise _Problem("log_prompts", "prompts are never logged", "there is no other value than false", policy=True)
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:]+)):([0-9]{1,5})", config.listen)
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise _Problem("listen", f"{config.listen[:80]!r} is not HOST:PORT", "such as 127.0.0.1:7345")
    host = match[1] or match[2]
    if not _is_loopback(host):
        raise _Problem("listen", f"{host} is not a loopback address", _SERVED_HINT, policy=True)
    if host not in _SERVED:
        raise _Problem("listen", f"{host} is no Host that is answered", _SERVED_HINT)
    if config.token_file and not config.token_path.is_absolute():
        raise _Problem("token_file", "not an absolute path")
    if "\0" in config.token_file:
        raise _Problem("token_file", "has a NUL character")


def _is_loopback(host: str) -> bool:
    """Return whether `host` is this machine. A name other than localhost would have to be looked up, and may change."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_server(name: str, value: Any) -> LocalServer:
    server = _typed(value, LocalServer)
    url = http_parts(server.url)
    if url is None or url.query or url.fragment:
        raise _Problem("url", "not an http(s) URL without user, query and fragment", "such as http://127.0.0.1:8080")
    if url.path.rstrip("/").endswith("/v1"):
        raise _Problem("url", "must end before /v1")
    if not _is_loopback(str(url.hostname)):
        # H3: what is called local stays on this machine. Otherwise any provider could be one.
        hint = "bring its port here: ssh -N -L 8080:127.0.0.1:8080 HOST"
        raise _Problem("url", f"{url.hostname} is not this machine, so it is not local", hint, policy=True)
    if _ELSEWHERE.fullmatch(server.model):
        hint = "name a model that runs here"
        raise _Problem("model", f"{server.model} runs on its maker's servers, so it is not local", hint, policy=True)
    _check_body(server.extra_body)
    _check_variable(server.auth_env, needed=False)
    return server


def _checked_subscription(value: Any) -> SubscriptionTable:
    if isinstance(value, dict) and isinstance(day := value.get("terms_read"), date):
        value = value | {"terms_read": day.isoformat()[:10]}  # written without quotes
    table = _typed(value, SubscriptionTable)
    if table.terms_read:
        try:
            read = date.fromisoformat(table.terms_read)
        except ValueError:
            raise _Problem("terms_read", "not a date such as 2026-11-28") from None
        if read > datetime.now(UTC).date():
            raise _Problem("terms_read", f"{read} is not yet")
    elif table.enabled:
        hint = "read docs/gateway.md#terms, then set it to that day"
        raise _Problem("terms_read", "missing: the provider's terms have to be read first", hint, policy=True)
    _check_variable(table.auth_env)
    # A name or a path, never a command line: no flag can be put in front of ours (H5).
    if not re.fullmatch(r"[\w.+-]+|/[^\s\0]+", table.cli) or table.cli.startswith("-"):
        raise _Problem("cli", "neither a program's name nor its absolute path")
    _check_models(table.models, TEXT_CLASSES)
    return table


def _checked_metered(value: Any) -> MeteredTable:
    table = _typed(value, MeteredTable)
    amounts = {key: getattr(table, key) or "1" for key in ("budget_day_usd", "max_usd_per_turn")}
    for name, text in table.budget_label_usd.items():
        if not _LABEL.fullmatch(name):
            hint = "such as project:website, client:codex, project:*"
            raise _Problem(f"budget_label_usd.{name[:80]!r}", "names no label", hint)
        amounts[f"budget_label_usd.{name}"] = text
    for key, text in amounts.items():
        try:
            amount = Decimal(text)
        except InvalidOperation:
            amount = Decimal(0)
        if not is_budget(amount) or pico(amount) == 0:
            raise _Problem(key, f"{text[:40]!r} is not an amount above 0 and up to {MAX_USD} US$", 'such as "2.00"')
    if not table.max_usd_per_turn:
        raise _Problem("max_usd_per_turn", "empty", 'such as "0.50"')
    if table.enabled and not table.budget_day_usd:
        raise _Problem("budget_day_usd", "missing: nothing is paid for without a limit", 'such as "2.00"')
    if table.key_source and "auth_env" in value:
        raise _Problem("key_source", "auth_env is set too", "set one of them")
    if table.key_source and not _KEY_SOURCE.fullmatch(table.key_source):
        raise _Problem("key_source", "not a key source", "such as file:~/repos.env#FARMHAND_GATEWAY_KEY")
    url = http_parts(table.url)
    if url is None or url.query or url.fragment or (url.scheme != "https" and not _is_loopback(str(url.hostname))):
        raise _Problem("url", "not an https URL without user, query and fragment", "such as https://api.anthropic.com")
    _check_variable(table.auth_env)
    _check_models(table.models, CLASSES)
    _check_body(table.extra_body)
    return table


def _check_variable(name: str, *, needed: bool = True) -> None:
    """Check that `auth_env` names a variable. A key that stands there instead is not repeated."""
    if (needed or name) and not _VARIABLE.fullmatch(name):
        raise _Problem("auth_env", "not the name of a variable", "the name, never the key itself")


def _check_models(models: dict[str, str], classes: Iterable[str]) -> None:
    for name, model in models.items():
        if name not in classes:
            raise _Problem(f"models.{name}", "not a class of this table", f"one of {', '.join(sorted(classes))}")
        if not re.fullmatch(r"[\w.:@/][\w.:@/-]{0,127}", model):
            raise _Problem(f"models.{name}", "not the name of a model")


def _check_body(body: dict[str, Any]) -> None:
    if taken := sorted(_OURS & body.keys()):
        raise _Problem("extra_body", f"may not set {', '.join(taken)}")
    if not _is_json(body):
        raise _Problem("extra_body", "has a value that JSON has not, such as a date or nan")


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _checked_alias(name: str, value: Any, servers: set[str], enabled: Mapping[str, bool]) -> Alias:
    alias = _typed(value, Alias)
    if alias.work_class is None and alias.backend is None:
        raise _Problem("", "names neither a class nor a backend")
    if alias.backend is not None:
        _check_backend("backend", alias.backend, servers, enabled)
    return alias


def _checked_rule(value: Any, servers: set[str], enabled: Mapping[str, bool]) -> Rule:
    if isinstance(value, dict) and isinstance(value.get("class"), str):
        value = value | {"class": [value["class"]]}
    rule = _typed(value, Rule)
    if rule.classes == ():
        raise _Problem("class", "is empty, so the rule is for nothing", "leave it out for all classes")
    for name in rule.order:
        _check_backend("try", name, servers, enabled)
    return rule


def _check_backend(key: str, name: str, servers: set[str], enabled: Mapping[str, bool]) -> None:
    if name in servers or enabled.get(name):
        return
    if name in enabled:
        raise _Problem(key, f"names {name}, but it is not enabled", f"take it out, or see [{name}] enabled")
    raise _Problem(
        key, f"names {name[:80]!r}, which is no backend", f"known: {', '.join(sorted(servers | {*enabled}))}"
    )
