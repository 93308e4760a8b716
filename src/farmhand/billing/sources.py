"""The places that bring something to `claude`, collected from the answers of all shells."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from ..core.keys import redact
from . import scan
from .ask import ShellAnswer
from .gateway import BASE_URL
from .kinds import own_files
from .names import HELPER, METERED, WATCHED, counts
from .reading import lines_of
from .trace import Trace
from .verdict import Location, Setting, Source


class Sources:
    """A collection of sources. `base` is the environment with which every shell of the session starts."""

    def __init__(self, home: Path, base: Mapping[str, Setting]) -> None:
        self.home, self.base = home, base
        #: In the order in which the shells met them.
        self.found: dict[tuple[str, str, str], Source] = {}

    def add(self, setting: Setting, kind: str, *, reaches: bool, shell: str = "") -> None:
        """Record a setting, and whether it reaches `claude` in this kind of shell."""
        if setting.text == "" or setting.name not in (*METERED, HELPER):
            return
        key = (setting.name, str(setting.location), str(setting.through or ""))
        source = self.found.get(key)
        if source is None:
            source = self.found[key] = Source(**setting.__dict__, shell=shell)
            source.command = shown_command(setting.command)
        if source.text is None:
            source.text = setting.text
        if reaches and kind not in source.shells:
            source.shells.append(kind)

    def spare(self, kind: str, spared: Collection[str], note: str) -> None:
        """Note that these names reach only our gateway in this kind of shell, or what is wrong with its base URL."""
        for source in self.found.values():
            if kind in source.shells and source.name in spared:
                source.shells.remove(kind)
            elif kind in source.shells and source.name == BASE_URL:
                source.note = source.note or note

    def take(self, answer: ShellAnswer, told: Trace, env: Mapping[str, str]) -> dict[str, Setting]:
        """Record all settings in an answer. Return the watched names in the environment of `claude`."""
        found = {}
        for name in WATCHED:
            value = env.get(name)
            settings = self._settings(name, answer, told, value)
            reaching = value is not None and counts(name, value)
            for setting, live in settings:
                of_shell = setting.via in ("export", "alias", "function", "prompt", "universal")
                shell = answer.kind.shell if of_shell else ""
                self.add(setting, answer.kind.name, reaches=reaching and live, shell=shell)
            if value is not None:
                last = next((setting for setting, live in reversed(settings) if live), Setting(name, value))
                found[name] = replace(last, text=value, command="")
        return found

    def _settings(self, name: str, answer: ShellAnswer, told: Trace, value: str | None) -> list[tuple[Setting, bool]]:
        """Return a name's settings in this shell, in order, each with whether it is in force when `claude` is typed."""
        events = [event for event in told.events if event.name == name]
        removed = max((number for number, event in enumerate(events) if event.text == ""), default=-1)
        base = self.base.get(name)
        found = [(base, True)] if base and value is not None and removed < 0 else []
        for number, event in enumerate(events):
            if event.text != "" and (setting := self._placed(event, answer, told)):
                found.append((setting, number > removed))
        if value is not None:
            if not any(live for _, live in found):
                found.append((self._untraced(name, value, answer, told), True))
            elif found[-1][1] and found[-1][0].text is None:
                found[-1] = (replace(found[-1][0], text=value), True)
        return found

    def _placed(self, event: Setting, answer: ShellAnswer, told: Trace) -> Setting | None:
        """Return a traced setting with its place; None if that cannot be found."""
        typed = event.via == "typed"
        location: Location | None = event.location
        if event.location.path is None:
            location = self._called(told) if typed else self._named(event.name, answer, told)
        return replace(event, location=location, via=_wrapper(answer) if typed else event.via) if location else None

    def _untraced(self, name: str, value: str, answer: ShellAnswer, told: Trace) -> Setting:
        """Find the origin of a value without an event: a universal variable, a wrapper of claude, or untraced code."""
        kind, before, fish = answer.kind, answer.before or {}, self.home / ".config/fish"
        if before.get(name) != value:
            if at := self._called(told):
                return Setting(name, value, at, _wrapper(answer))
        elif kind.shell == "fish" and (at := _grep(scan.UNIVERSAL.format(name), [fish / "fish_variables"])):
            return Setting(name, value, at, "universal")
        for each in reversed(scan.settings(kind, self.home, before, Path("/"), {})):
            if each.name == name:
                return replace(each, text=value)
        if at := self._named(name, answer, told):
            return Setting(name, value, at, "export")
        files = [path for path in told.files if path.is_relative_to(self.home)]
        path = next(iter([*files, *own_files(kind.shell, self.home, {})]), None)
        return Setting(name, value, Location(path), "export" if path else "environment")

    def _named(self, name: str, answer: ShellAnswer, told: Trace) -> Location | None:
        """Return the last line that names it outside of comments, in the files that were read."""
        return _grep(rf"\b{name}\b", [*own_files(answer.kind.shell, self.home, {}), *told.files])

    def _called(self, told: Trace) -> Location | None:
        """Return the place of the alias or the function that `claude` is."""
        return told.called or self.definition("claude", told)

    def definition(self, word: str, told: Trace) -> Location | None:
        """Return where a word is defined as an alias or a function."""
        if word in told.defined:
            return told.defined[word]
        every = [path for shell in ("bash", "zsh", "sh") for path in own_files(shell, self.home, {})]
        fish = self.home / ".config/fish"
        pattern = rf"^\s*(function\s+{word}(?![\w-])|{word}\s*\(\)|alias\s.*\b{word}[ =]|abbr\s.*\b{word}\s)"
        return _grep(pattern, [*every, fish / "config.fish", *told.files, fish / f"functions/{word}.fish"])


def _grep(pattern: str, files: list[Path]) -> Location | None:
    """Return the last line that matches outside of comments."""
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


def shown_command(written: str) -> str:
    """Return a command that prints a key in displayable form: only the program, if the rest may hold a secret."""
    command = written.strip("`").removeprefix("$").removeprefix("(").removesuffix(")").strip()
    program = command.partition(" ")[0]
    plain = re.fullmatch(r"[\w ./:@~+-]+", command) and program not in ("echo", "printf")
    return redact(command if plain or not command else f"{program} …")
