"""What a word expands to, as far as that can be told without running anything."""

from __future__ import annotations

import fnmatch
import glob
import re
from dataclasses import replace

from .state import State
from .syntax import Part, Word

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?=)")
_GLOB = re.compile(r"[*?\[]")
_QUALIFIER = re.compile(r"\([-.NnDonLr/@*^]*\)")


def expand(word: Word, state: State) -> str | None:
    """The word's text; None if it holds what only its shell can tell."""
    return text_of(word.parts, state)


def text_of(parts: tuple[Part, ...], state: State) -> str | None:
    """The text that `parts` make."""
    out = []
    for number, part in enumerate(parts):
        if part.kind == "dyn":
            return None
        if part.kind == "lit":
            text: str | None = part.text
            if number == 0 and not part.quoted and (part.text == "~" or part.text.startswith("~/")):
                text = str(state.home) + part.text[1:]
            elif number == 0 and not part.quoted and part.text.startswith("~"):
                return None
        else:
            text = state.text(part.text)
            if text == "" and part.default is not None:
                text = part.default
        if text is None:
            return None
        out.append(text)
    return "".join(out)


def assignment(word: Word) -> tuple[str, tuple[Part, ...], bool] | None:
    """(name, parts of the value, whether it appends) if the word has the form NAME=value."""
    if not word.parts or word.parts[0].kind != "lit" or word.parts[0].quoted:
        return None
    match = _ASSIGNMENT.match(word.parts[0].text)
    if match is None:
        return None
    rest = word.parts[0].text[match.end() :]
    first = (replace(word.parts[0], text=rest),) if rest else ()
    return match[1], (*first, *word.parts[1:]), match[2] == "+="


def dynamic_text(parts: tuple[Part, ...]) -> str:
    """The first substitution in a word, as it is written."""
    return next((part.text for part in parts if part.kind == "dyn"), "")


def paths(word: Word, state: State) -> list[str] | None:
    """The word as file names or loop values: patterns matched, in the order of a shell. None: cannot be told."""
    parts = word.parts
    if len(parts) > 1 and parts[-1].kind == "dyn" and _QUALIFIER.fullmatch(parts[-1].text):
        parts = parts[:-1]  # zsh's glob qualifiers
    text = text_of(parts, state)
    if text is None:
        return None
    if any(part.kind == "lit" and not part.quoted and _GLOB.search(part.text) for part in parts):
        found = sorted(glob.glob(text))
        return found or ([] if state.shell in ("zsh", "fish") else [text])
    if any(part.kind == "var" and not part.quoted for part in parts) and state.shell in ("sh", "bash"):
        return text.split()
    return [text]


def matches(text: str, pattern: Word, state: State) -> bool | None:
    """Whether `text` matches a pattern of `case` or `[[`. None: cannot be told."""
    out = []
    for part in pattern.parts:
        piece = text_of((part,), state)
        if piece is None:
            return None
        # In fish a pattern of `case` is one in quotes as well: fish_for_bash_users.
        out.append(re.sub(r"([*?\[])", r"[\1]", piece) if part.quoted and state.shell != "fish" else piece)
    return fnmatch.fnmatchcase(text, "".join(out))
