"""Types that several threads decode.

msgspec describes a type to itself at its first use. Where two threads do that at once it crashes the process (seen with
0.22.0, as a segmentation fault of `farmhand doctor` with two hosts).
"""

from __future__ import annotations

from _thread import allocate_lock
from typing import Any, TypeVar

T = TypeVar("T")
_lock = allocate_lock()
_ready: set[Any] = set()


def ready(kind: type[T]) -> type[T]:
    """Return `kind` after msgspec has described it, in one thread at a time."""
    if kind not in _ready:
        import msgspec  # not at the top: wire.schema says in one line where it is missing

        with _lock:
            msgspec.json.Decoder(kind)
            _ready.add(kind)
    return kind
