"""Aliases for functions of core.errors."""

from __future__ import annotations

from farmhand.core.errors import FarmhandError, WireError, from_result

__all__ = ["from_result", "from_wire"]


def from_wire(error: WireError, host: str = "") -> FarmhandError:
    """Return `error.at(host)`."""
    return error.at(host)
