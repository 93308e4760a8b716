"""Who pays for an interactive `claude` in each kind of shell, and where what decides that is set: the data."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..wire.keys import fingerprint, redact
from .names import BASE_URLS, CLOUDS, HELPER, KEY, OAUTH, TOKEN, is_on
from .reading import Problem
from .state import Place, Value


@dataclass
class Source:
    """Where a metered credential, a provider's switch or a base URL is set.

    `shells` are the kinds of shell in which it reaches `claude`; none: it stands there, but nothing brings it in.
    `text` is the value, for whoever moves it; it is in no output.
    """

    name: str
    place: Place
    via: str
    fingerprint: str | None
    certain: bool = True
    command: str = ""
    through: Place | None = None
    shells: list[str] = field(default_factory=list)
    text: str | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, object]:
        """As plain data, without the value."""
        return {
            "name": self.name,
            "path": str(self.place.path) if self.place.path else None,
            "line": self.place.line or None,
            "via": self.via,
            "through": str(self.through) if self.through else None,
            "fingerprint": self.fingerprint,
            "command": self.command or None,
            "certain": self.certain,
            "shells": self.shells,
        }

    def __str__(self) -> str:
        through = f" (through {self.through})" if self.through and self.through != self.place else ""
        return f"{self.name} in {self.place}{through}"


@dataclass(frozen=True)
class Verdict:
    """What the real CLI would use in one kind of shell, by its documented precedence.

    `billed` is subscription, api_key, token (whoever issued the bearer token), cloud or none. `api_key_source` is what
    the CLI's init event says, `headers` carry the credential to the API (a cloud provider has its own).
    """

    shell: str
    mode: str
    installed: bool
    credential: str
    billed: str
    source: str
    fingerprint: str | None
    certain: bool
    api_key_source: str
    headers: tuple[str, ...]
    base_url: str | None

    @property
    def kind(self) -> str:
        """`zsh login interactive`."""
        return f"{self.shell} {self.mode}"

    @property
    def metered(self) -> bool:
        """Whether something other than the subscription would pay, or see the login on its way."""
        return self.billed not in ("subscription", "none") or self.base_url is not None

    def as_dict(self) -> dict[str, object]:
        """As plain data."""
        return {**self.__dict__, "headers": list(self.headers), "metered": self.metered}


@dataclass
class Report:
    """What was found. `problems` are files that could not be followed, each with its line.

    `hidden` are Farmhand's commands that an alias or a function of the operator's hides, with its place.
    """

    verdicts: list[Verdict]
    sources: list[Source]
    problems: list[Problem]
    logged_in: bool
    hidden: list[str] = field(default_factory=list)

    @property
    def metered(self) -> bool:
        """Whether any kind of shell would not run on the subscription alone."""
        return any(verdict.metered for verdict in self.verdicts)

    @property
    def reaching(self) -> list[Source]:
        """The sources that reach `claude` in some kind of shell."""
        return [source for source in self.sources if source.shells]

    def line(self) -> str:
        """One line for an operator."""
        if not self.metered:
            pays = "the subscription" if self.logged_in else "nobody (no login)"
            return f"no metered credential reaches an interactive claude; {pays} pays"
        return "; ".join(f"{s} reaches claude in {_few(s.shells)}" for s in self.reaching if s.name != OAUTH)

    def as_dict(self) -> dict[str, object]:
        """As plain data, without any value."""
        return {
            "metered": self.metered,
            "logged_in": self.logged_in,
            "summary": self.line(),
            "shells": [verdict.as_dict() for verdict in self.verdicts],
            "sources": [source.as_dict() for source in self.sources],
            "hidden": self.hidden,
            "problems": [{"path": str(p.path), "line": p.line or None, "reason": p.reason} for p in self.problems],
        }


def shown_command(written: str) -> str:
    """A command that gives a key, as it may be shown: of what may hold a secret the program only."""
    command = written.strip("`").removeprefix("$").removeprefix("(").removesuffix(")").strip()
    program = command.partition(" ")[0]
    plain = re.fullmatch(r"[\w ./:@~+-]+", command) and program not in ("echo", "printf")
    return redact(command if plain or not command else f"{program} …")


def _few(kinds: list[str]) -> str:
    return ", ".join(kinds[:3]) + (f" and {len(kinds) - 3} more kinds of shell" if len(kinds) > 3 else "")


def judge(shell: str, mode: str, env: Mapping[str, Value], helper: Value | None, *, logged_in: bool) -> Verdict:
    """The verdict for an environment: cloud provider, bearer token, key, helper, OAuth token, login; the first wins."""

    def there(name: str) -> bool:
        return name in env and env[name].text != ""

    cloud = next((n for n in CLOUDS if there(n) and (env[n].text is None or is_on(env[n].text or ""))), None)
    value: Value | None = None
    headers: list[str] = []
    if cloud:
        credential, billed, value = cloud, "cloud", env[cloud]
    elif there(TOKEN):
        credential, billed, value = TOKEN, "token", env[TOKEN]
        headers = ["authorization", *(["x-api-key"] if there(KEY) else [])]
    elif there(KEY):
        credential, billed, value = KEY, "api_key", env[KEY]
        headers = [*(["authorization"] if helper else []), "x-api-key"]
    elif helper:
        credential, billed, value = HELPER, "api_key", helper
        headers = ["authorization", "x-api-key"]
    elif there(OAUTH):
        credential, billed, value = OAUTH, "subscription", env[OAUTH]
        headers = ["authorization"]
    elif logged_in:
        credential, billed, headers = "login", "subscription", ["authorization"]
    else:
        credential, billed = "none", "none"
    url = next((name for name in BASE_URLS if there(name)), None)
    source = "the login of the CLI" if credential == "login" else "" if value is None else str(value.place)
    return Verdict(
        shell=shell,
        mode=mode,
        installed=shutil.which(shell) is not None,
        credential=credential,
        billed=billed,
        source=source,
        fingerprint=fingerprint(value.text) if value and value.text and not cloud else None,
        certain=value is None or value.certain,
        api_key_source=KEY if there(KEY) else HELPER if helper else "none",
        headers=tuple(headers),
        base_url=f"{url} in {env[url].place}" if url else None,
    )
