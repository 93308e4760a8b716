"""The search for everything that could bring a metered credential to an interactive `claude`."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from . import guarded, reading, scan, shims, trace, trace_fish
from .ask import CLI_LIMIT_S, LIMIT_S, Asking, CannotAsk, ShellAnswer, asking, of_manager
from .gateway import BASE_URL, OwnGateway
from .kinds import Kind, own_files, to_ask
from .names import METERED, WATCHED, counts
from .sources import Sources, shown_command
from .supervise import OUT_OF_TIME
from .trace import Trace
from .verdict import UNKNOWN, Location, Report, Setting, Verdict, judge, shown

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
#: The operator's own shells of which there is a verdict, or which start nothing.
_KNOWN = ("bash", "zsh", "fish", "sh", "dash", "false", "nologin", "rbash", "")


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
        self.account = None
        with contextlib.suppress(OSError, KeyError):  # a container's uid may have no account
            self.account = pwd.getpwuid(home.stat().st_uid)
        if environ is os.environ and home.exists() and home.stat().st_uid != os.geteuid():
            # The session belongs to another user (Ansible's become): keep only variables that are not personal.
            environ = {name: environ[name] for name in ("PATH", "LANG", "TERM", "TZ") if name in environ}
            ask = False
        self.home, self.environ, self.cwd, self.root, self.limit_s = home, environ, cwd, root, limit_s
        self.login_shell = environ.get("SHELL") or (self.account.pw_shell if self.account else "/bin/sh")
        self.problems: reading.Problems = {}
        self.silent = ""
        manager: dict[str, str] = {}
        try:
            manager = of_manager(environ) if ask else {}
        except CannotAsk as error:
            self.silent = str(error)
        self.base = reading.session(root, home, environ, manager, self.problems)
        self.sources = Sources(home, self.base)
        self.gateway = OwnGateway(home, environ)
        self.found = Report([], [], [], logged_in=False)

    def report(self, *, ask_shell: bool) -> Report:
        found = self.found
        kinds = to_ask(self.home, self.environ, self.login_shell, self.root)
        if not ask_shell:
            found.verdicts = [self.read(kind) for kind in kinds]
        else:
            try:
                found.verdicts = self.ask(kinds)
            except (CannotAsk, OSError, RuntimeError) as error:  # no process, space or thread
                self.sources = Sources(self.home, self.base)
                found.verdicts = [_unknown(kind, str(error)) for kind in kinds]
                found.late = {kind.name for kind in kinds}
            name = Path(self.login_shell).name
            if name not in _KNOWN:
                found.verdicts.append(
                    _unknown(Kind(name, "interactive", name), f"farmhand does not know how to ask {name}")
                )
        found.sources = list(self.sources.found.values())
        found.problems = list(self.problems.values())
        return found

    def ask(self, kinds: list[Kind]) -> list[Verdict]:
        """Return each kind's verdict from its shell's answer, and record the programs run for secrets."""
        session = {name: setting.text for name, setting in self.base.items() if setting.text is not None}
        with asking(self.home, self.environ, session, self.cwd or self.home, self.limit_s) as started:
            answers = _at_once(started, started.ask, kinds)
            # The CLI is asked once per environment that could make a difference.
            environs = {_relevant(answer.got): answer.got for answer in answers if answer.got is not None}
            said = dict(zip(environs, _at_once(started, started.cli, environs.values()), strict=True))
            found = [self.verdict(answer, said.get(_relevant(answer.got or {}))) for answer in answers]
            self.found.asked = list(dict.fromkeys(shown_command(command) for command in shims.asked(started.cache)))
        return found

    def verdict(self, answer: ShellAnswer, said: Mapping[str, object] | None) -> Verdict:
        """Return the verdict for one shell's answer."""
        kind, env = answer.kind, answer.got
        read = trace_fish.read if kind.shell == "fish" else trace.read
        told = read(answer, own_files(kind.shell, self.home, self.environ), self.home)
        for word in ("claude-cheap", "farmhand"):
            if "function" in answer.definitions.get(word, "") or "alias" in answer.definitions.get(word, ""):
                hidden = f"{word} in {self.sources.definition(word, told) or kind.shell}"
                self.found.hidden += [hidden] if hidden not in self.found.hidden else []
        if answer.before is not None:
            self.found.exports[kind.name] = frozenset(n for n, v in answer.before.items() if v and n not in WATCHED)
        if env is None and answer.status is not None:
            # The CLI itself was called, by its path: its output counts, not the shell's environment.
            env, said = shown(answer.before or {}, answer.status), answer.status
        if env is None:
            if answer.ended == OUT_OF_TIME:
                self.found.late.add(kind.name)
            return _unknown(kind, *self._why(answer, told))
        verdict = self._judged(kind, self.sources.take(answer, told, env), env, said=said)
        if verdict.metered:
            return verdict
        stopped = f"claude auth status was stopped before it answered (after {CLI_LIMIT_S:g} s, or by a signal)"
        if silent := self.silent or (stopped if said == {} else ""):
            self.found.late.add(kind.name)
            return _unknown(kind, silent)
        unseen = self._unseen(answer, told, env)
        return _unknown(kind, *unseen) if unseen else verdict

    def read(self, kind: Kind) -> Verdict:
        """Return the verdict from only reading the files of a kind."""
        found = {}
        for shell, settings in (("", self.base.values()), (kind.shell, self._scanned(kind))):
            for setting in settings:
                self.sources.add(setting, kind.name, reaches=counts(setting.name, setting.text), shell=shell)
                found[setting.name] = setting
        return self._judged(kind, found, self.environ, how="read")

    def _judged(
        self,
        kind: Kind,
        found: Mapping[str, Setting],
        env: Mapping[str, str],
        *,
        said: Mapping[str, object] | None = None,
        how: str = "asked",
    ) -> Verdict:
        """Return the verdict for the settings found and those of the CLI's files, which `env` may place elsewhere."""
        config = Path(env.get("CLAUDE_CONFIG_DIR") or self.home / ".claude")
        files = reading.cli_files(self.root, config, self.cwd, self.account.pw_name if self.account else "")
        settings = reading.cli_settings(files, self.problems)
        for setting in settings:
            self.sources.add(setting, kind.name, reaches=counts(setting.name, setting.text))
        logged_in = bool(said.get("loggedIn")) if said else reading.logged_in(config, self.home)
        self.found.logged_in |= logged_in
        in_force = {**found, **{setting.name: setting for setting in settings}}
        texts = {name: setting.text for name, setting in in_force.items()}
        spared, whose = self.gateway.spared(texts), self.gateway.whose(texts.get(BASE_URL))
        self.sources.spare(kind.name, spared, whose.note)
        left = {name: setting for name, setting in in_force.items() if name not in spared}
        verdict = judge(kind.shell, kind.mode, left, logged_in=logged_in, said=said, how=how)
        if whose.ours and not verdict.metered and not verdict.unknown:
            return replace(verdict, billed="gateway", gateway=whose.ours)
        return verdict

    def _scanned(self, kind: Kind) -> list[Setting]:
        return scan.settings(kind, self.home, self.environ, self.root, self.problems)

    def _unseen(self, answer: ShellAnswer, told: Trace, env: Mapping[str, str]) -> tuple[str, Location | None] | None:
        """Return why a shell's answer may be incomplete, and where; None if it is complete."""
        if told.question:
            return "a start-up file asks a question there, which nobody answers", told.question
        if answer.definitions.get("deferred", "0") not in ("", "0"):
            return "zsh-defer loads more once somebody waits at the prompt", None
        if waiting := _LOADS.search(answer.definitions.get("waiting", "")):
            name = re.escape(waiting["function"])
            return "`zle -F` has it load more once somebody waits at the prompt", self.sources.definition(name, told)
        files = dict.fromkeys([*scan.files(answer.kind, self.home, self.environ, self.root), *told.sourced])
        return guarded.find(self._scanned(answer.kind), files, answer.kind.shell, env, self.problems)

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


def _unknown(kind: Kind, reason: str, at: Location | None = None) -> Verdict:
    return Verdict(kind.shell, kind.mode, UNKNOWN, UNKNOWN, reason=reason, stopped_at=str(at) if at else "")


def _relevant(env: Mapping[str, str]) -> tuple[str | None, frozenset[tuple[str, str]]]:
    """Return what of an environment may change the CLI's status. A wrapper may be on one PATH only."""
    relevant = frozenset((name, value) for name, value in env.items() if name.startswith(_RELEVANT))
    return shutil.which("claude", path=env.get("PATH")), relevant


def _at_once(started: Asking, ask: Callable[[_Asked], _Said], each: Iterable[_Asked]) -> list[_Said]:
    """Return the answers to questions asked in parallel. On Ctrl-C or SIGTERM, end what was started."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            return list(pool.map(ask, each))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            started.stop()
            raise
