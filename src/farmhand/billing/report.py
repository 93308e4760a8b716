"""Who pays for an interactive `claude`, for each kind of shell, and where what decides that is set."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..wire.keys import fingerprint, redact
from . import environs, launch, settings
from .direnv import project_environment
from .names import BASE_URLS, CLOUDS, HELPER, KEY, METERED, OAUTH, TOKEN, WATCHED, is_on
from .startup import MODES, SHELLS, Files, Problem
from .state import Place, State, Value


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
    """What was found. `problems` are files that could not be followed, each with its line."""

    verdicts: list[Verdict]
    sources: list[Source]
    problems: list[Problem]
    logged_in: bool

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
            "problems": [{"path": str(p.path), "line": p.line or None, "reason": p.reason} for p in self.problems],
        }


def _few(kinds: list[str]) -> str:
    return ", ".join(kinds[:3]) + (f" and {len(kinds) - 3} more kinds of shell" if len(kinds) > 3 else "")


def find(
    home: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
    *,
    root: Path = Path("/"),
    ask: bool = True,
) -> Report:
    """Look everywhere a metered credential could come from. Reads files; runs none of them.

    `environ` is the session's environment that shells are started from: {} for none. `cwd` is the current project.
    `ask` also asks systemd's user manager (or launchd) for its environment.
    """
    return _Search(home or Path.home(), environ, cwd, root, ask=ask).report()


class _Search:
    def __init__(self, home: Path, environ: Mapping[str, str], cwd: Path | None, root: Path, *, ask: bool) -> None:
        self.home, self.environ, self.cwd, self.root = home, environ, cwd, root
        self.files = Files(root)
        self.base = environs.session(root, home, environ, ask=ask)
        self.sources: dict[tuple[str, str, str], Source] = {}
        self.read: dict[Path, settings.Settings] = {}
        self.logged_in = False

    def report(self) -> Report:
        verdicts = [self.kind(shell, mode) for shell in SHELLS for mode in MODES]
        sources = [source for source in self.sources.values() if source.name in METERED or source.name == HELPER]
        sources.sort(key=lambda s: (str(s.place.path or ""), s.place.line, s.name))
        return Report(verdicts, sources, list(self.files.problems.values()), self.logged_in)

    def kind(self, shell: str, mode: str) -> Verdict:
        login, interactive = MODES[mode]
        state = State(shell, login, interactive, self.home, dict(self.base))
        self.usual(state)
        self.files.run(state)
        project = project_environment(state, self.cwd, self.files)
        env = {**launch.environment(state, self.files), **project.exported}
        config = Path(_text(env, "CLAUDE_CONFIG_DIR") or self.home / ".claude")
        conf = self.settings(config)
        env |= conf.env
        logged_in = settings.logged_in(config, self.home)
        self.logged_in |= logged_in
        verdict = judge(shell, mode, env, conf.helper, logged_in=logged_in)
        for name, value in (*state.passed, *launch.dormant(state), *project.there, *conf.all, *self.base.items()):
            self.note(name, value)
        # What another setting wins over would be next once that is gone, so it reaches `claude` as well.
        reaching = [(name, value) for name, values in state.live.items() for value in values]
        reaching += [(name, value) for name, value in (*state.environment().items(), *env.items()) if name in WATCHED]
        reaching += [(name, value) for name, value in conf.all if name == HELPER or value.text]
        for name, value in reaching:
            if value.text != "" and (name not in CLOUDS or value.text is None or is_on(value.text)):
                kinds = self.note(name, value).shells
                kinds += [] if verdict.kind in kinds else [verdict.kind]
        return verdict

    def usual(self, state: State) -> None:
        """What every shell sets by itself."""
        shell, interactive = state.shell, state.interactive
        version = {"bash": "BASH_VERSION", "zsh": "ZSH_VERSION", "fish": "FISH_VERSION"}.get(shell)
        defaults = {"HOME": str(self.home), "-": "himBHs" if interactive else "hBc"}
        if version:
            defaults[version] = "5.0"
        if shell in ("bash", "zsh"):
            defaults[shell.upper() if shell == "bash" else "ZSH_NAME"] = f"/bin/{shell}"
        if interactive and shell != "fish":
            defaults["PS1"] = "$ "
        elif "PS1" in state.variables:
            del state.variables["PS1"]
        for name, text in defaults.items():
            state.variables[name] = Value(text, exported=name == "HOME")

    def settings(self, config: Path) -> settings.Settings:
        if config not in self.read:
            user = pwd.getpwuid(os.getuid()).pw_name
            paths = settings.files(self.root, config, self.cwd, user)
            self.read[config] = settings.read(paths, self.files.problems)
        return self.read[config]

    def note(self, name: str, value: Value) -> Source:
        place = value.place or Place(None, 0)
        key = (name, str(place), value.via)
        if name not in (*WATCHED, HELPER) or value.text == "":
            return Source(name, place, value.via, None)
        if key not in self.sources:
            self.sources[key] = Source(
                name,
                place,
                value.via,
                fingerprint(value.text) if value.text else None,
                value.certain,
                redact(value.ran),
                value.through,
                text=value.text,
            )
        return self.sources[key]


def _text(env: Mapping[str, Value], name: str) -> str:
    value = env.get(name)
    return (value.text or "") if value else ""


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
