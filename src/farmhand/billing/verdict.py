"""The results of a search: settings with their places, the account billed in each kind of shell, and the report."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.keys import fingerprint
from .names import BASE_URLS, CLOUDS, HEADERS, HELPER, INDIRECT, KEY, OAUTH, TOKEN, counts

#: The value of `billed` if the account is unknown.
UNKNOWN = "unknown"
_LOGIN = "login"
#: Values of `billed` that are no leak.
_OURS = ("subscription", "gateway", "none")
#: Credentials in the CLI's order of precedence, and the account billed for each.
_BILLED = {
    **dict.fromkeys(CLOUDS, "cloud"),
    TOKEN: "token",
    KEY: "api_key",
    **INDIRECT,
    HEADERS: "token",
    HELPER: "api_key",
    OAUTH: "subscription",
    _LOGIN: "subscription",
}
#: Authentication methods of `claude auth status` that use a plan (or a bearer token of an unknown issuer), and others.
_PLAN = ("claude.ai", "oauth_token")
_METHODS = {"api_key": "api_key", "api_key_helper": "api_key", "third_party": "cloud"}


@dataclass(frozen=True)
class Location:
    """The location of a setting. `path` None means the session's environment; `line` 0 the whole file."""

    path: Path | None
    line: int = 0

    def __str__(self) -> str:
        if self.path is None:
            return "the session's environment"
        return f"{self.path}:{self.line}" if self.line else str(self.path)


@dataclass(frozen=True)
class Problem:
    """A problem with a file; `line` 0 means the whole file."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{Location(self.path, self.line)}: {self.reason}"


@dataclass
class Setting:
    """One setting of a name. `text` is None if the value is known only by running `command`. No output contains it.

    `via` is environment, manager (systemd, launchd), file (lines of KEY=VALUE), settings (of the CLI), universal
    (fish), export (a statement of a shell), alias, function, prompt (a prompt's hook). `through` is the statement of a
    shell's file that brings in a setting from elsewhere.
    """

    name: str
    text: str | None = field(repr=False)
    location: Location = Location(None)
    via: str = "environment"
    command: str = ""
    through: Location | None = None
    #: What is wrong with the value, and what to do, where that is known (of a base URL).
    note: str = ""

    @property
    def fingerprint(self) -> str | None:
        """Return the fingerprint of the value; None if there is none."""
        return fingerprint(self.text) if self.text else None

    def __str__(self) -> str:
        through = f" (through {self.through})" if self.through and self.through != self.location else ""
        return f"{self.name} in {self.location}{through}{f' ({self.note})' if self.note else ''}"


@dataclass
class Source(Setting):
    """A place where a metered credential, a provider's switch or a base URL is set.

    `shells` are the kinds of shell in which it reaches `claude`; none if the name is unset again or the file is not
    read. `shell` is the shell whose syntax the file has; "" for other files.
    """

    shell: str = ""
    shells: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """Return plain data, without the value."""
        return {
            "name": self.name,
            "path": str(self.location.path) if self.location.path else None,
            "line": self.location.line or None,
            "via": self.via,
            "through": str(self.through) if self.through else None,
            "fingerprint": self.fingerprint,
            "note": self.note or None,
            "command": self.command or None,
            "shell": self.shell or None,
            "shells": self.shells,
        }


@dataclass(frozen=True)
class Verdict:
    """The account that the real CLI would use in one kind of shell.

    `billed` is subscription, api_key, token (the issuer of the bearer token), cloud, gateway (the operator's own, at
    the address `gateway`: it says who pays for what), none (no login) or unknown. `how` is "asked" (the shell itself,
    and the CLI if installed) or "read" (only from the files, not a fact). `credential` is the variable's name,
    apiKeyHelper, login, none or unknown. `api_key_source` is the CLI's own value. `headers` carry the credential to the
    API. `reason` and `stopped_at` are set if the result is unknown.
    """

    shell: str
    mode: str
    credential: str
    billed: str
    how: str = "asked"
    source: str = ""
    fingerprint: str | None = None
    api_key_source: str = "none"
    headers: tuple[str, ...] = ()
    base_url: str | None = None
    gateway: str = ""
    reason: str = ""
    stopped_at: str = ""

    @property
    def kind(self) -> str:
        """Return the kind, such as `zsh login interactive`."""
        return f"{self.shell} {self.mode}"

    @property
    def unknown(self) -> bool:
        """Return whether the billed account is unknown."""
        return self.billed == UNKNOWN

    @property
    def metered(self) -> bool:
        """Return whether an account other than the subscription is billed, or another server sees the login."""
        return self.billed not in (*_OURS, UNKNOWN) or self.base_url is not None

    def as_dict(self) -> dict[str, object]:
        """Return plain data."""
        return {**self.__dict__, "headers": list(self.headers), "metered": None if self.unknown else self.metered}


def judge(
    shell: str,
    mode: str,
    env: Mapping[str, Setting],
    *,
    logged_in: bool,
    said: Mapping[str, Any] | None = None,
    how: str = "asked",
) -> Verdict:
    """Return the verdict for the settings of an environment (HELPER: the settings' helper), by the CLI's precedence.

    `said` is the CLI's own status here. It is believed if it names something metered that the variables do not show,
    but not if it names the plan although a metered variable is set.
    """
    said = said or {}
    there = {name: setting for name, setting in env.items() if counts(name, setting.text)}
    known = {*there, _LOGIN} if (said.get("loggedIn") if said else logged_in) else {*there}
    credential = next((name for name in _BILLED if name in known), "none")
    billed = _BILLED.get(credential, "none")
    bearer = credential in (TOKEN, HELPER, OAUTH, _LOGIN) or (credential == KEY and HELPER in there)
    x_api_key = credential in (KEY, HELPER) or (credential == TOKEN and KEY in there)
    setting = there.get(credential)
    source = str(setting.location) if setting else "the login of the CLI" if credential == _LOGIN else ""
    method = str(said.get("authMethod") or "")
    if billed in ("subscription", "none") and said.get("loggedIn") and method not in _PLAN:
        billed = _METHODS.get(method, "token")
        credential = str(said.get("apiKeySource") or method or "unknown")[:80]
        source, bearer, x_api_key = "what claude auth status says", False, False
    url = next((name for name in BASE_URLS if name in there), None)
    return Verdict(
        shell,
        mode,
        credential,
        billed,
        how,
        source,
        fingerprint=setting.fingerprint if setting and billed != "cloud" else None,
        api_key_source=str(said.get("apiKeySource") or next((name for name in (KEY, HELPER) if name in there), "none")),
        headers=("authorization",) * bearer + ("x-api-key",) * x_api_key,
        base_url=f"{url} in {there[url].location}" if url else None,
    )


def status(output: str) -> dict[str, Any] | None:
    """Return the JSON object printed by `claude auth status --json`, ignoring other output around it."""
    for start in re.finditer("{", output):
        with contextlib.suppress(ValueError, RecursionError):
            found, _ = json.JSONDecoder().raw_decode(output, start.start())
            if isinstance(found, dict) and "loggedIn" in found:
                return found
    return None


def shown(env: Mapping[str, str], said: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of an environment that agrees with the CLI's status: a wrapper may have removed variables."""
    kept = {"claude.ai": (), "oauth_token": (TOKEN,), "api_key": (KEY, *INDIRECT)}.get(str(said.get("authMethod")))
    gone = set() if kept is None else {*CLOUDS, TOKEN, KEY, *INDIRECT, HEADERS} - set(kept)
    return {name: value for name, value in env.items() if name not in gone}


@dataclass
class Report:
    """The result of a search. `problems` are files that could not be read, each with its line.

    `hidden` lists Farmhand's commands hidden by the operator's alias or function, with its location. `asked` lists the
    programs that start-up files ran for a secret, each of which was run once.
    """

    verdicts: list[Verdict]
    sources: list[Source]
    problems: list[Problem]
    logged_in: bool
    hidden: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    #: Other variables exported with a value, by kind of shell: an edit must not lose any.
    exports: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)
    #: The kinds of shell that a busy machine may have kept from answering: a repeated query may succeed.
    late: set[str] = field(default_factory=set)

    @property
    def metered(self) -> bool:
        """Return whether in any kind of shell an account other than the subscription is known to be billed."""
        return any(verdict.metered for verdict in self.verdicts)

    @property
    def unknown(self) -> list[Verdict]:
        """Return the verdicts with an unknown account."""
        return [verdict for verdict in self.verdicts if verdict.unknown]

    @property
    def read_only(self) -> bool:
        """Return whether the verdicts come from reading the files and not from the shells."""
        return any(verdict.how == "read" for verdict in self.verdicts)

    @property
    def certain(self) -> bool:
        """Return whether every verdict was observed. Only then may anything say that the subscription is billed."""
        return bool(self.verdicts) and not self.unknown and not self.read_only

    @property
    def reaching(self) -> list[Source]:
        """Return the sources that reach `claude` in some kind of shell, in the order in which the shells met them."""
        return [source for source in self.sources if source.shells]

    def line(self) -> str:
        """Return a one-line summary for an operator."""
        said = []
        if self.metered:
            said += [f"{source} reaches claude in {_few(source.shells)}" for source in self.reaching]
            known = {kind for source in self.reaching for kind in source.shells}
            bare = [verdict for verdict in self.verdicts if verdict.metered and verdict.kind not in known]
            if bare:
                said.append(f"{bare[0].credential} reaches claude in {_few([verdict.kind for verdict in bare])}")
        elif len(self.unknown) < len(self.verdicts):
            pays = "the subscription pays" if self.logged_in else "it is not logged in, so nothing is billed"
            if ours := [verdict for verdict in self.verdicts if verdict.gateway]:
                kinds = _few([verdict.kind for verdict in ours])
                pays += f", and in {kinds} your gateway on {ours[0].gateway} decides who pays"
            where = f"claude in {len(self.verdicts) - len(self.unknown)} kinds of shell"
            where = where if self.unknown else "an interactive claude"
            said.append(f"no metered credential reaches {where}; {pays}")
        reasons: dict[str, list[str]] = {}
        for verdict in self.unknown:
            at = f" ({verdict.stopped_at})" if verdict.stopped_at else ""
            reasons.setdefault(f"{verdict.reason}{at}", []).append(verdict.kind)
        said += [f"cannot be told for {_few(kinds)}: {reason}" for reason, kinds in reasons.items()]
        if not self.verdicts:
            said.append("cannot be told: no shell with start-up files is installed")
        read = "by reading alone, which is no proof: " if self.read_only else ""
        return read + "; ".join(said)

    def as_dict(self) -> dict[str, object]:
        """Return plain data, without any value. `metered` is null if nothing metered was seen, but not all was seen."""
        return {
            "metered": True if self.metered else False if self.certain else None,
            "unknown": [verdict.kind for verdict in self.unknown],
            "certain": self.certain,
            "logged_in": self.logged_in,
            "summary": self.line(),
            "shells": [verdict.as_dict() for verdict in self.verdicts],
            "sources": [source.as_dict() for source in self.sources],
            "asked": self.asked,
            "hidden": self.hidden,
            "problems": [{"path": str(p.path), "line": p.line or None, "reason": p.reason} for p in self.problems],
        }


def _few(kinds: list[str]) -> str:
    return ", ".join(kinds[:3]) + (f" and {len(kinds) - 3} more kinds of shell" if len(kinds) > 3 else "")
