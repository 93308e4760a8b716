"""The data of a search: the billed account in each kind of shell, and where the deciding setting is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ..core.keys import redact
from .names import OAUTH
from .reading import Problem

#: The value of `billed` if the account is unknown.
UNKNOWN = "unknown"


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
class Setting:
    """One setting of a name. `text` is None if the value is known only by running `command`.

    `via` is environment, manager (systemd, launchd), file (lines of KEY=VALUE), settings (of the CLI), universal
    (fish), export (a statement of a shell), alias, function, prompt (a prompt's hook).
    """

    name: str
    text: str | None
    location: Location = Location(None)
    via: str = "environment"
    command: str = ""
    through: Location | None = None


@dataclass
class Source:
    """A place where a metered credential, a provider's switch or a base URL is set.

    `shells` are the kinds of shell in which it reaches `claude`. It is empty if the name is unset again before `claude`
    or the file is not read. `shell` is the shell whose syntax the file has; "" for other files. `through` is the
    statement of a shell's file that brings in a setting from elsewhere. `text` is the value, for moving it; no output
    contains it.
    """

    name: str
    location: Location
    via: str
    fingerprint: str | None
    shell: str = ""
    through: Location | None = None
    command: str = ""
    shells: list[str] = field(default_factory=list)
    text: str | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, object]:
        """Return plain data, without the value."""
        return {
            "name": self.name,
            "path": str(self.location.path) if self.location.path else None,
            "line": self.location.line or None,
            "via": self.via,
            "through": str(self.through) if self.through else None,
            "fingerprint": self.fingerprint,
            "command": self.command or None,
            "shell": self.shell or None,
            "shells": self.shells,
        }

    def __str__(self) -> str:
        through = f" (through {self.through})" if self.through and self.through != self.location else ""
        return f"{self.name} in {self.location}{through}"


@dataclass(frozen=True)
class Verdict:
    """The account that the real CLI would use in one kind of shell.

    `billed` is subscription, api_key, token (the issuer of the bearer token), cloud, none (no login) or unknown. `how`
    is "asked" (the shell itself, and the CLI if installed) or "read" (only from the files, not a fact). `credential` is
    the variable's name, apiKeyHelper, login, none or unknown. `api_key_source` is the CLI's own value. `headers` carry
    the credential to the API (a cloud provider has its own). `reason` and `stopped_at` are set if the result is
    unknown.
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
        return self.billed not in ("subscription", "none", UNKNOWN) or self.base_url is not None

    def as_dict(self) -> dict[str, object]:
        """Return plain data."""
        return {**self.__dict__, "headers": list(self.headers), "metered": None if self.unknown else self.metered}


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
    late: frozenset[str] = frozenset()

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
            reaching = [source for source in self.reaching if source.name != OAUTH]
            said += [f"{source} reaches claude in {_few(source.shells)}" for source in reaching]
            known = {kind for source in reaching for kind in source.shells}
            bare = [verdict for verdict in self.verdicts if verdict.metered and verdict.kind not in known]
            if bare:
                said.append(f"{bare[0].credential} reaches claude in {_few([verdict.kind for verdict in bare])}")
        elif len(self.unknown) < len(self.verdicts):
            pays = "the subscription" if self.logged_in else "nobody (no login)"
            where = f"claude in {len(self.verdicts) - len(self.unknown)} kinds of shell"
            where = where if self.unknown else "an interactive claude"
            said.append(f"no metered credential reaches {where}; {pays} pays")
        for reason, kinds in _grouped(self.unknown).items():
            said.append(f"cannot be told for {_few(kinds)}: {reason}")
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


def shown_command(written: str) -> str:
    """Return a command that prints a key in displayable form: only the program, if the rest may hold a secret."""
    command = written.strip("`").removeprefix("$").removeprefix("(").removesuffix(")").strip()
    program = command.partition(" ")[0]
    plain = re.fullmatch(r"[\w ./:@~+-]+", command) and program not in ("echo", "printf")
    return redact(command if plain or not command else f"{program} …")


def _few(kinds: list[str]) -> str:
    return ", ".join(kinds[:3]) + (f" and {len(kinds) - 3} more kinds of shell" if len(kinds) > 3 else "")


def _grouped(verdicts: list[Verdict]) -> dict[str, list[str]]:
    """Return kinds of shell by the reason why they are unknown."""
    found: dict[str, list[str]] = {}
    for verdict in verdicts:
        at = f" ({verdict.stopped_at})" if verdict.stopped_at else ""
        found.setdefault(f"{verdict.reason}{at}", []).append(verdict.kind)
    return found
