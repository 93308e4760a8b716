"""A runbook of docs/operations.md, for a test that does what it says with the very commands that it prints."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
#: What begins with one of these, between backticks in the text, is a command to type.
_PROGRAMS = r"(?:ansible|ansible-playbook|cat|claude-cheap|cp|farmhand|ssh-keygen|ssh-keyscan)"
_FENCED = re.compile(r"^ *```\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(rf"(?<!`)`({_PROGRAMS} [^`]+)`")
#: A word that the operator replaces: ADDRESS, but not the VARIABLE_NAME of something, nor an option.
_PLACEHOLDER = re.compile(r"(?<![\w-])[A-Z]{2,}(?![\w-])")


def section(heading: str, document: str) -> str:
    """The text below a heading of the second level, up to the next one."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", document, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{DOCUMENT.name} has no section {heading!r}"
    return found[1]


def commands(text: str) -> list[str]:
    """Every command of a section: the lines of its code blocks, and what stands between backticks in its text."""
    blocks = [line.strip() for block in _FENCED.findall(text) for line in block.splitlines() if line.strip()]
    return list(dict.fromkeys([*blocks, *_INLINE.findall(_FENCED.sub("", text))]))


class Runbook:
    """`with Runbook(HEADING) as book:` follows it. On leaving, a command that was not taken out of it is an error."""

    def __init__(self, heading: str, document: Path | None = None) -> None:
        self._heading = heading
        self._text = section(heading, (document or DOCUMENT).read_text("utf-8"))
        self._left = commands(self._text)
        self._all = tuple(self._left)

    def command(self, begins: str, **placeholders: str) -> str:
        """The one command that begins so, with its placeholders filled in; of several, the shortest one."""
        found = sorted((one for one in self._all if one.startswith(begins)), key=len)
        assert found, f"{self._heading!r} has no command {begins!r} (any more)"
        if found[0] in self._left:
            self._left.remove(found[0])
        filled = _PLACEHOLDER.sub(lambda word: placeholders.get(word[0], word[0]), found[0])
        assert not _PLACEHOLDER.search(filled), f"what is put in place of the words in {found[0]!r}?"
        return filled

    def skip(self, *programs: str) -> None:
        """Commands of these programs are for another test."""
        self._left = [one for one in self._left if not one.startswith(programs)]

    def says(self, *words: str) -> None:
        """What a step relies on still stands there; line breaks do not count."""
        text = " ".join(self._text.split())
        for one in words:
            assert one in text, f"{self._heading!r} does not say {one!r} (any more)"

    def __enter__(self) -> Runbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert kind is not None or not self._left, f"{self._heading!r} prints what nobody has tried: {self._left}"
