"""Taking settings of metered names out of a shell's file: what else stands there stays as it is, byte for byte.

A statement of its own becomes a comment with the reason and the date. Of a statement that does more only the setting
goes; where a statement has nothing left, `:` takes its place, so that a block around it stays valid. A file that is
sourced and keeps the key (the key file itself) is followed by an `unset`.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass

from ..wire.keys import redact
from .expand import assignment
from .names import METERED
from .state import Place
from .syntax import Script, Simple, Word

_ENDS = re.compile(r"[ \t]*;?[ \t]*(#.*)?\r?")
_DECLARING = {"export", "declare", "typeset", "readonly", "local", "alias"}


@dataclass(frozen=True)
class Cut:
    """One setting to take out, or with `unset` the command after which the name is to be unset."""

    name: str
    place: Place
    note: str
    unset: bool = False


def edit(script: Script, cuts: list[Cut], shell: str) -> str | None:
    """The file's text without the settings. None where one of them cannot be taken out cleanly."""
    changes: list[tuple[int, int, str]] = []
    by_command: dict[int, list[Cut]] = {}
    for cut in cuts:
        if cut.place.command is None:
            return None
        by_command.setdefault(cut.place.command.start, []).append(cut)
    for group in by_command.values():
        command = group[0].place.command
        assert command is not None  # noqa: S101 - seen above
        if group[0].unset:
            changes.append(_unset(script, command, group, shell))
            continue
        found = _take_out(script, command, group, shell)
        if found is None:
            return None
        changes += found
    text = script.text
    for start, end, replacement in sorted(changes, reverse=True):
        text = text[:start] + replacement + text[end:]
    return text


def comment_line(text: str, line: int, note: str) -> str:
    """A file of KEY=VALUE lines with one of them commented out."""
    lines = text.split("\n")
    old = lines[line - 1]
    ending = "\r" if old.endswith("\r") else ""
    lines[line - 1] = f"# {note}{ending}\n# {_hidden(old.strip())}{ending}"
    return "\n".join(lines)


def _take_out(script: Script, command: Simple, cuts: list[Cut], shell: str) -> list[tuple[int, int, str]] | None:
    text = script.text
    removed = [word for word in command.words if any(cut.place.word == word for cut in cuts)]
    if not removed:
        return None
    head = command.words[0].literal
    operands = [word for word in command.words[1:] if not (word.literal or "").startswith(("-", "+"))]
    whole = (
        (shell == "fish" and head == "set")
        or (all(assignment(word) for word in command.words) and len(removed) == len(command.words))
        or (head in _DECLARING and len(removed) == len(operands))
        or (head == "alias" and shell == "fish")
    )
    notes = list(dict.fromkeys(cut.note for cut in cuts))
    if not whole:
        spans = [_with_blank(text, word) for word in removed]
        return [*[(start, end, "") for start, end in spans], _note(script, command.start, notes)]
    line_start, line_end = _lines(text, command)
    lonely = not text[line_start : command.start].strip() and _ENDS.fullmatch(text[command.end : line_end])
    was = _hidden(text[command.start : command.end], command, removed)
    if lonely and command.alone and line_start in script.line_starts:
        ending = "\r" if text[:line_end].endswith("\r") else ""
        indent = text[line_start : command.start]
        lines = [*notes, *was.replace("\r", "").split("\n")]
        rest = text[command.end : line_end].strip(" \t;\r")
        commented = [f"{indent}# {line}{ending}" for line in lines]
        commented[-1] = commented[-1].removesuffix(ending) + (f"  {rest}" if rest else "") + ending
        return [(line_start, line_end, "\n".join(commented))]
    shown = f": # {was}" if lonely and "\n" not in was and not text[command.end : line_end].strip(" \t\r") else ":"
    return [(command.start, command.end, shown), _note(script, command.start, notes)]


def _note(script: Script, offset: int, notes: list[str]) -> tuple[int, int, str]:
    """Comment lines above `offset`, at the nearest place where a comment is one."""
    starts = sorted(set(script.line_starts))
    at = starts[bisect.bisect_right(starts, offset) - 1]
    indent = re.match(r"[ \t]*", script.text[at:])[0]  # type: ignore[index]  # matches the empty string
    ending = _line_ending(script.text)
    return at, at, "".join(f"{indent}# {note}{ending}" for note in notes)


def _unset(script: Script, command: Simple, cuts: list[Cut], shell: str) -> tuple[int, int, str]:
    text = script.text
    starts = sorted(set(script.line_starts))
    following = bisect.bisect_left(starts, command.end)
    at = starts[following] if following < len(starts) else len(text)
    ending = _line_ending(text)
    line_start, _ = _lines(text, command)
    indent = re.match(r"[ \t]*", text[line_start:])[0]  # type: ignore[index]  # matches the empty string
    names = list(dict.fromkeys(cut.name for cut in cuts))
    verb = "set -e" if shell == "fish" else "unset"
    lines = [*dict.fromkeys(f"# {cut.note}" for cut in cuts)]
    # One `set -e` or `unset` each: a name that is not there must not keep the others from going.
    lines += [f"{verb} {name}" for name in names]
    before = "" if at == 0 or text[at - 1] == "\n" else ending
    return at, at, before + "".join(f"{indent}{line}{ending}" for line in lines)


def _lines(text: str, command: Simple) -> tuple[int, int]:
    """The extent of the lines that the command stands on, without the last one's end."""
    end = text.find("\n", command.end)
    return text.rfind("\n", 0, command.start) + 1, len(text) if end < 0 else end


def _with_blank(text: str, word: Word) -> tuple[int, int]:
    """The word and the blank beside it."""
    start, end = word.start, word.end
    while end < len(text) and text[end] in " \t":
        end += 1
    if end < len(text) and text[end] in "\r\n;&|)#":
        end = word.end
        while start > 0 and text[start - 1] in " \t":
            start -= 1
    return start, end


def _line_ending(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _hidden(text: str, command: Simple | None = None, removed: list[Word] | None = None) -> str:
    """What stood there, without the value."""
    if command is not None and removed:
        base = command.start
        for word in sorted(removed, key=lambda word: -word.start):
            found = assignment(word)
            # In fish the value is the words after the name.
            end = word.end if found else command.end
            name = found[0] if found else (word.literal or "").partition("=")[0]
            shown = f"{name}=…" if found else f"{name} …"
            text = text[: word.start - base] + shown + text[end - base :]
    else:
        text = re.sub(rf"\b({'|'.join(METERED)})([ \t]*[=:]|[ \t]+(?:DEFAULT|OVERRIDE)=).*", r"\1\2…", text)
    return redact(text)
