"""The places that bring something to `claude`, collected from the answers of all shells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..core.keys import fingerprint
from . import scan
from .ask import ShellAnswer
from .events import Event, Trace
from .kinds import own_files
from .names import HELPER, METERED, WATCHED, counts
from .reading import Reader, lines_of
from .verdict import Location, Setting, Source, shown_command


class Sources:
    """A collection of sources. `base` is the environment with which every shell of the session starts."""

    def __init__(self, home: Path, base: Mapping[str, Setting]) -> None:
        self.home, self.base = home, base
        self._found: dict[tuple[str, str, str], Source] = {}

    def listed(self) -> list[Source]:
        """Return all sources found, in the order in which the shells met them."""
        return [source for source in self._found.values() if source.name in METERED or source.name == HELPER]

    def add(self, setting: Setting, kind: str, *, reaches: bool, shell: str = "") -> None:
        """Record a setting, and whether it reaches `claude` in this kind of shell."""
        if setting.text == "":
            return
        key = (setting.name, str(setting.location), str(setting.through or ""))
        source = self._found.get(key)
        if source is None:
            source = self._found[key] = Source(
                setting.name,
                setting.location,
                setting.via,
                fingerprint(setting.text) if setting.text else None,
                shell,
                setting.through,
                shown_command(setting.command),
                text=setting.text,
            )
        if source.text is None and setting.text is not None:
            source.text, source.fingerprint = setting.text, fingerprint(setting.text)
        if reaches and kind not in source.shells:
            source.shells.append(kind)

    def take(self, answer: ShellAnswer, told: Trace, env: Mapping[str, str]) -> dict[str, Setting]:
        """Record all settings in an answer. Return the watched names in the environment of `claude`."""
        found = {}
        for name in WATCHED:
            value = env.get(name)
            settings = self._settings(name, answer, told, value)
            reaching = value is not None and counts(name, value)
            for setting, live in settings:
                self.add(setting, answer.kind.name, reaches=reaching and live, shell=_shell(setting, answer))
            if value is not None:
                last = next((setting for setting, live in reversed(settings) if live), Setting(name, value))
                found[name] = Setting(name, value, last.location, last.via, "", last.through)
        return found

    def _settings(self, name: str, answer: ShellAnswer, told: Trace, value: str | None) -> list[tuple[Setting, bool]]:
        """Return a name's settings in this shell, in order, each with whether it is in force when `claude` is typed."""
        events = [event for event in told.events if event.name == name]
        found: list[tuple[Event, bool]] = []
        for event in events:
            if event.unset or event.value == "":
                found = [(each, False) for each, _ in found]
            else:
                found.append((event, True))
        base = self.base.get(name)
        taken_away = any(event.unset or event.value == "" for event in events)
        settings: list[tuple[Setting, bool]] = []
        if base and value is not None and not taken_away:
            settings.append((base, True))
        for event, live in found:
            if setting := self._of_event(event, answer, told):
                settings.append((setting, live))
        if value is not None and not any(live for _, live in settings):
            settings.append((self._unseen(name, value, answer, told), True))
        if value is not None and settings and settings[-1][1] and settings[-1][0].text is None:
            last = settings[-1][0]
            settings[-1] = (Setting(name, value, last.location, last.via, last.command, last.through), True)
        return settings

    def _of_event(self, event: Event, answer: ShellAnswer, told: Trace) -> Setting | None:
        via = _wrapper(answer) if event.typed else "prompt" if event.prompt else "export"
        location = event.location
        if location is None:
            typed = told.called or told.defined.get("claude") or self.definition("claude", told)
            location = typed if event.typed else self._named(event.name, answer, told)
        if location is None:
            return None
        return Setting(event.name, event.value, location, via, through=event.through)

    def _unseen(self, name: str, value: str, answer: ShellAnswer, told: Trace) -> Setting:
        """Find the origin of a value without an event: a universal variable, a wrapper of claude, or untraced code."""
        before = (answer.before or {}).get(name)
        if answer.kind.shell == "fish" and before == value and (at := self._universal(name)):
            return Setting(name, value, at, "universal")
        if before != value:
            at = told.called or told.defined.get("claude") or self.definition("claude", told)
            if at:
                return Setting(name, value, at, _wrapper(answer))
        read = [
            each
            for each in scan.settings(answer.kind, self.home, answer.before or {}, Path("/"), Reader())
            if each.name == name
        ]
        if read:
            return Setting(name, value, read[-1].location, read[-1].via, "", read[-1].through)
        at = self._named(name, answer, told)
        if at is None:
            files = [path for path in told.files if path.is_relative_to(self.home)]
            own = own_files(answer.kind.shell, self.home, {})
            at = Location(next(iter([*files, *own]), None))
        return Setting(name, value, at, "export" if at.path else "environment")

    def _named(self, name: str, answer: ShellAnswer, told: Trace) -> Location | None:
        """Return the last line that names it outside of comments, in the files that were read."""
        own = [path for path in own_files(answer.kind.shell, self.home, {}) if path.is_file()]
        return _grep(rf"\b{name}\b", [*own, *told.files])

    def definition(self, word: str, told: Trace) -> Location | None:
        """Return where a word is defined as an alias or a function."""
        if word in told.defined:
            return told.defined[word]
        every = [path for shell in ("bash", "zsh", "sh") for path in own_files(shell, self.home, {})]
        functions = self.home / f".config/fish/functions/{word}.fish"
        pattern = rf"^\s*(function\s+{word}(?![\w-])|{word}\s*\(\)|alias\s.*\b{word}[ =]|abbr\s.*\b{word}\s)"
        return _grep(pattern, [*every, self.home / ".config/fish/config.fish", *told.files, functions])

    def _universal(self, name: str) -> Location | None:
        path = self.home / ".config/fish/fish_variables"
        for number, line in enumerate(lines_of(path), 1):
            if (match := scan.UNIVERSAL.match(line)) and match["name"] == name:
                return Location(path, number)
        return None


def _grep(pattern: str, files: list[Path]) -> Location | None:
    found = None
    for path in dict.fromkeys(files):
        for number, line in enumerate(lines_of(path), 1):
            if re.search(pattern, line) and not line.lstrip().startswith("#"):
                found = Location(path, number)
    return found


def _wrapper(answer: ShellAnswer) -> str:
    """Return whether the typed `claude` is an "alias" or a "function"."""
    said = answer.definitions.get("claude", "").split("\n")[0]
    return "alias" if "alias" in said or said == "file" else "function"


def _shell(setting: Setting, answer: ShellAnswer) -> str:
    return answer.kind.shell if setting.via in ("export", "alias", "function", "prompt", "universal") else ""
