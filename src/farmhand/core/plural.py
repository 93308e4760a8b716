"""A number with its noun, as people write it."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return `1 task`, `2 tasks`. `plural` is for a noun that does not take an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
