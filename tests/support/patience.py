"""How often a condition is asked for: the longer it takes to ask, the less often, so that what it waits for can run."""

from __future__ import annotations

import time

#: Asking takes at most one part in so many of the time.
_SHARE = 4
_LONGEST_S = 0.5


def pause(began: float, least_s: float) -> None:
    """Sleep after a condition that was asked for at `began` (time.monotonic): `least_s`, or up to half a second."""
    time.sleep(max(least_s, min((_SHARE - 1) * (time.monotonic() - began), _LONGEST_S)))
