"""The search for everything that could bring a metered credential to an interactive `claude`."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from . import environs, guarded, scan, settings, trace, verdicts
from .ask import CLI_LIMIT_S, LIMIT_S, Asking, CannotAsk, ShellAnswer
from .events import Trace
from .kinds import Kind, own_files, to_ask
from .names import METERED, WATCHED, counts
from .reading import Reader
from .sources import Sources
from .supervise import OUT_OF_TIME
from .verdict import UNKNOWN, Location, Report, Verdict, shown_command

_Asked = TypeVar("_Asked")
_Said = TypeVar("_Said")
#: Number of shells asked in parallel.
_AT_ONCE = 4
#: A function, in zsh's output format, that names something metered or reads a file.
_LOADS = re.compile(
    rf"^(?P<function>\S+) \(\) {{\n(?:\t.*\n)*?\t.*(?:\b(?:{'|'.join(METERED)})\b|(?<![^\s;&|(])(?:source|\.|eval) )",
    re.MULTILINE,
)
_RELEVANT = ("ANTHROPIC_", "CLAUDE_", "AWS_", "GOOGLE_", "CLOUD_ML_", "VERTEX_", "AZURE_", "HOME", "XDG_")


def find(
    home: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
    *,
    root: Path = Path("/"),
    ask: bool = True,
    ask_shell: bool = True,
    limit_s: float = LIMIT_S,
) -> Report:
    """Start the operator's shells and check the environment of `claude` in each.

    `environ` is the session's environment for the shells; {} for none. `cwd` is their start directory, the current
    project. `root` is the system's root (tests). `ask` also queries the environment of systemd's user manager (or
    launchd). With `ask_shell` False nothing of the operator's is run: the files are read, and every verdict is only a
    reading. `limit_s` is the time limit for one shell, in seconds.
    """
    return _Search(home or Path.home(), environ, cwd, root, ask=ask, limit_s=limit_s).report(ask_shell=ask_shell)


class _Search:
    def __init__(
        self, home: Path, environ: Mapping[str, str], cwd: Path | None, root: Path, *, ask: bool, limit_s: float
    ) -> None:
        if environ is os.environ and home.exists() and home.stat().st_uid != os.geteuid():
            # The session belongs to another user (Ansible's become): keep only variables that are not personal.
            environ = {name: environ[name] for name in ("PATH", "LANG", "TERM", "TZ") if name in environ}
            ask = False
        self.home, self.environ, self.cwd, self.root, self.limit_s = home, environ, cwd, root, limit_s
        self.reader = Reader()
        self.silent = ""
        manager: dict[str, str] = {}
        try:
            manager = environs.of_manager(environ) if ask else {}
        except CannotAsk as error:
            self.silent = str(error)
        self.base = environs.session(root, home, environ, manager, self.reader)
        self.sources = Sources(home, self.base)
        self.logged_in = False
        self.hidden: dict[str, None] = {}
        self.exports: dict[str, frozenset[str]] = {}
        self.late: set[str] = set()

    def report(self, *, ask_shell: bool) -> Report:
        kinds = to_ask(self.home, self.environ, self._login_shell(), self.root)
        asked: list[str] = []
        if not ask_shell:
            found = [self.read(kind) for kind in kinds]
        else:
            try:
                found, asked = self.ask(kinds)
            except (CannotAsk, OSError, RuntimeError) as error:  # no process, space or thread
                self.sources = Sources(self.home, self.base)
                found = [_unknown(kind, str(error)) for kind in kinds]
                self.late = {kind.name for kind in kinds}
            found += self._foreign()
        shown = list(dict.fromkeys(shown_command(command) for command in asked))
        return Report(
            found,
            self.sources.listed(),
            list(self.reader.problems.values()),
            self.logged_in,
            list(self.hidden),
            shown,
            self.exports,
            frozenset(self.late),
        )

    def _login_shell(self) -> str:
        if shell := self.environ.get("SHELL"):
            return shell
        try:
            return pwd.getpwuid(self.home.stat().st_uid).pw_shell
        except (OSError, KeyError):
            return "/bin/sh"

    def _foreign(self) -> list[Verdict]:
        """Return an unknown verdict for the operator's own shell if it is a kind that cannot be asked."""
        name = Path(self._login_shell()).name
        if name in ("bash", "zsh", "fish", "sh", "dash", "false", "nologin", "rbash", ""):
            return []
        return [_unknown(Kind(name, "interactive", name), f"farmhand does not know how to ask {name}")]

    def ask(self, kinds: list[Kind]) -> tuple[list[Verdict], list[str]]:
        """Return each kind's verdict from its shell's answer, and the programs that start-up files ran for secrets."""
        session = {name: setting.text for name, setting in self.base.items() if setting.text is not None}
        with Asking(self.home, self.environ, session, self.cwd or self.home, self.limit_s) as asking:
            answers = _at_once(asking, asking.ask, kinds)
            said = self._ask_cli(asking, answers)
            found = [self.verdict(answer, said[number]) for number, answer in enumerate(answers)]
            return found, asking.asked()

    def _ask_cli(self, asking: Asking, answers: list[ShellAnswer]) -> list[dict[str, object] | None]:
        """Return the CLI's own status for each kind. It is asked once per environment that could make a difference."""
        keys = []
        by_key: dict[tuple[str | None, frozenset[tuple[str, str]]], dict[str, str]] = {}
        for answer in answers:
            env = answer.got or {}
            relevant = frozenset((name, value) for name, value in env.items() if name.startswith(_RELEVANT))
            key = (shutil.which("claude", path=env.get("PATH")), relevant)  # a wrapper may be on one PATH only
            keys.append(key)
            if answer.got is not None:
                by_key.setdefault(key, env)
        said = dict(zip(by_key, _at_once(asking, asking.cli, by_key.values()), strict=True))
        return [said.get(key) for key in keys]

    def verdict(self, answer: ShellAnswer, said: dict[str, object] | None) -> Verdict:
        """Return the verdict for one shell's answer."""
        kind = answer.kind
        told = trace.read(answer, own_files(kind.shell, self.home, self.environ), self.home)
        for word in ("claude-cheap", "farmhand"):
            if "function" in answer.definitions.get(word, "") or "alias" in answer.definitions.get(word, ""):
                self.hidden[f"{word} in {self.sources.definition(word, told) or kind.shell}"] = None
        if answer.before is not None:
            self.exports[kind.name] = frozenset(n for n, v in answer.before.items() if v and n not in WATCHED)
        env = answer.got
        if env is None and answer.status is not None:
            # The CLI itself was called, by its path: its output counts, not the shell's environment.
            env, said = verdicts.shown(answer.before or {}, answer.status), answer.status
        if env is None:
            reason, at = self._why(answer, told)
            if answer.ended == OUT_OF_TIME:
                self.late.add(kind.name)
            return _unknown(kind, reason, at)
        found = self.sources.take(answer, told, env)
        conf = self._settings(env)
        for setting in conf.all:
            self.sources.add(setting, kind.name, reaches=counts(setting.name, setting.text))
        logged_in = self._logged_in(env)
        self.logged_in |= bool(said.get("loggedIn")) if said else logged_in
        told_by = verdicts.judge(kind.shell, kind.mode, found | conf.env, conf.helper, logged_in=logged_in, said=said)
        if told_by.metered:
            return told_by
        stopped = f"claude auth status was stopped before it answered (after {CLI_LIMIT_S:g} s, or by a signal)"
        if silent := self.silent or (stopped if said == {} else ""):
            self.late.add(kind.name)
            return _unknown(kind, silent)
        unseen = self._unseen(answer, told, env)
        return _unknown(kind, *unseen) if unseen else told_by

    def _unseen(self, answer: ShellAnswer, told: Trace, env: Mapping[str, str]) -> tuple[str, Location | None] | None:
        """Return why a shell's answer may be incomplete, and where; None if it is complete."""
        if told.question:
            return "a start-up file asks a question there, which nobody answers", told.question
        if answer.definitions.get("deferred", "0") not in ("", "0"):
            return "zsh-defer loads more once somebody waits at the prompt", None
        if waiting := _LOADS.search(answer.definitions.get("waiting", "")):
            name = re.escape(waiting["function"])
            return "`zle -F` has it load more once somebody waits at the prompt", self.sources.definition(name, told)
        found = scan.settings(answer.kind, self.home, self.environ, self.root, self.reader)
        files = dict.fromkeys([*scan.files(answer.kind, self.home, self.environ, self.root), *told.sourced])
        return guarded.find(found, files, answer.kind.shell, env, self.reader)

    def _why(self, answer: ShellAnswer, told: Trace) -> tuple[str, Location | None]:
        """Return why a shell could not be asked, and where it stopped."""
        if answer.unanswered:
            return f"{shown_command(answer.unanswered.splitlines()[0])} was asked once and gave no answer", told.stopped
        if answer.before is not None:
            late = f" within {self.limit_s:g} s" if answer.ended == OUT_OF_TIME else ""
            at = told.defined.get("claude") or told.called
            return f"what is typed as claude there does not start the CLI{late}", at
        if answer.ended == OUT_OF_TIME:
            return f"it was not ready for claude after {self.limit_s:g} s", told.stopped
        if answer.ended.startswith("signal"):
            return f"it crashed ({answer.ended})", told.stopped
        return "it ended before claude could be typed", told.stopped

    def read(self, kind: Kind) -> Verdict:
        """Return the verdict from only reading the files of a kind."""
        found = dict(self.base)
        for setting in self.base.values():
            self.sources.add(setting, kind.name, reaches=counts(setting.name, setting.text))
        for setting in scan.settings(kind, self.home, self.environ, self.root, self.reader):
            self.sources.add(setting, kind.name, reaches=counts(setting.name, setting.text), shell=kind.shell)
            found[setting.name] = setting
        env = {name: setting.text or "" for name, setting in found.items()}
        conf = self._settings({**self.environ, **env})
        for setting in conf.all:
            self.sources.add(setting, kind.name, reaches=counts(setting.name, setting.text))
        logged_in = self._logged_in(self.environ)
        self.logged_in |= logged_in
        return verdicts.judge(kind.shell, kind.mode, found | conf.env, conf.helper, logged_in=logged_in, how="read")

    def _config(self, env: Mapping[str, str]) -> Path:
        return Path(env.get("CLAUDE_CONFIG_DIR") or self.home / ".claude")

    def _settings(self, env: Mapping[str, str]) -> settings.ClaudeSettings:
        try:
            user = pwd.getpwuid(self.home.stat().st_uid).pw_name
        except (OSError, KeyError):
            user = ""
        return settings.read(settings.files(self.root, self._config(env), self.cwd, user), self.reader)

    def _logged_in(self, env: Mapping[str, str]) -> bool:
        return settings.logged_in(self._config(env), self.home)


def _unknown(kind: Kind, reason: str, at: Location | None = None) -> Verdict:
    return Verdict(kind.shell, kind.mode, UNKNOWN, UNKNOWN, reason=reason, stopped_at=str(at) if at else "")


def _at_once(asking: Asking, ask: Callable[[_Asked], _Said], each: Iterable[_Asked]) -> list[_Said]:
    """Return the answers to questions asked in parallel. On Ctrl-C or SIGTERM, end what was started."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            return list(pool.map(ask, each))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            asking.stop()
            raise
