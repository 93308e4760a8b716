"""The search for everything that could bring a metered credential to an interactive `claude`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from ..wire.keys import fingerprint
from . import environs, launch, settings
from .direnv import project_environment
from .names import CLOUDS, HELPER, METERED, WATCHED, is_on
from .reading import Reader
from .startup import MODES, SHELLS, Files
from .state import Place, State, Value
from .verdict import Report, Source, Verdict, judge, shown_command


def find(
    home: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
    *,
    root: Path = Path("/"),
    ask: bool = True,
    planned: Mapping[Path, bytes] | None = None,
) -> Report:
    """Look everywhere a metered credential could come from. Reads files; runs none of them.

    `environ` is the session's environment that shells are started from: {} for none. `cwd` is the current project.
    `ask` also asks systemd's user manager (or launchd) for its environment. `planned` is what files (by their resolved
    paths) are to become: the answer is then how it will be.
    """
    return _Search(home or Path.home(), environ, cwd, root, Reader(planned or {}), ask=ask).report()


class _Search:
    def __init__(
        self,
        home: Path,
        environ: Mapping[str, str],
        cwd: Path | None,
        root: Path,
        reader: Reader,
        *,
        ask: bool,
    ) -> None:
        self.home, self.cwd, self.root, self.reader = home, cwd, root, reader
        self.files = Files(root, reader)
        self.base = environs.session(root, home, environ, reader, ask=ask)
        self.sources: dict[tuple[str, str, int], Source] = {}
        self.read: dict[Path, settings.Settings] = {}
        self.logged_in = False
        self.hidden: dict[str, None] = {}

    def report(self) -> Report:
        verdicts = [self.kind(shell, mode) for shell in SHELLS for mode in MODES]
        sources = [source for source in self.sources.values() if source.name in METERED or source.name == HELPER]
        sources.sort(key=lambda s: (str(s.place.path or ""), s.place.line, s.name))
        return Report(verdicts, sources, list(self.reader.problems.values()), self.logged_in, list(self.hidden))

    def kind(self, shell: str, mode: str) -> Verdict:
        login, interactive = MODES[mode]
        state = State(shell, login, interactive, self.home, dict(self.base))
        self.usual(state)
        self.files.run(state)
        self.hidden |= dict.fromkeys(launch.hidden(state))
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
            self.read[config] = settings.read(paths, self.reader)
        return self.read[config]

    def note(self, name: str, value: Value) -> Source:
        place = value.place or Place(None, 0)
        key = (name, str(place), place.word.start if place.word else -1)
        if name not in (*WATCHED, HELPER) or value.text == "":
            return Source(name, place, value.via, None)
        if key not in self.sources:
            self.sources[key] = Source(
                name,
                place,
                value.via,
                fingerprint(value.text) if value.text else None,
                value.certain,
                shown_command(value.ran),
                value.through,
                text=value.text,
            )
        return self.sources[key]


def _text(env: Mapping[str, Value], name: str) -> str:
    value = env.get(name)
    return (value.text or "") if value else ""
