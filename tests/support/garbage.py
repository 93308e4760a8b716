"""Python looks for garbage after every 700 new objects, and through all objects again and again.

A process of the tests has a million of them that stay: modules, models of AWS, test items. So it looks less often, and
not through those that were there at the beginning. Nothing else changes. Source: Python's documentation of gc.freeze.
"""

from __future__ import annotations

import gc

_OBJECTS = 50_000


def seldom() -> None:
    """Look for garbage less often from here on."""
    gc.set_threshold(_OBJECTS, 20, 20)


def leave_alone() -> None:
    """Look never again through what is there now, so that forked processes share its memory, too."""
    gc.collect()
    gc.freeze()
