"""Whether colour and other styles are written, by the variables that users know, and rich's console accordingly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_OFF = ("", "0", "false", "no")


def is_dumb(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the terminal can do nothing but print lines."""
    return environ.get("TERM", "") in ("dumb", "unknown")


def coloured(stream: IO[str] | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether styles go to `stream`: on a terminal that has them, or if they are forced.

    NO_COLOR beats FORCE_COLOR and CLICOLOR_FORCE; those beat the rest. Sources: no-color.org, force-color.org and
    bixense.com/clicolors.
    """
    if environ.get("NO_COLOR"):
        return False
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        if name in environ and environ[name] != "":
            return environ[name].lower() not in _OFF
    if environ.get("CLICOLOR") == "0" or is_dumb(environ):
        return False
    return stream is not None and stream.isatty()


def console(stream: IO[str], **settings: Any) -> Console:
    """Return a console that writes to `stream`, with styles or without any."""
    from rich.console import Console

    system: Any = None
    if coloured(stream):
        system = "auto" if stream.isatty() and not is_dumb() else "standard"
    return Console(file=stream, color_system=system, **settings)
