"""Python looks for garbage after every 700 new objects, and through all objects again and again.

A process of the tests has a million of them that stay: modules, models of AWS, test items. So it looks less often, and
not through those that were there at the beginning. Nothing else changes. Source: Python's documentation of gc.freeze.
"""

from __future__ import annotations

import gc

_OBJECTS = 50_000


def seldom() -> None:
    """From here on look less often."""
    gc.set_threshold(_OBJECTS, 20, 20)


def leave_alone() -> None:
    """What is there now stays: never look through it again, and do not copy its pages in forked processes."""
    gc.collect()
    gc.freeze()
