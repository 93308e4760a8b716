"""The setting `when_spent`: what becomes of a task, or the rest of a batch, that has no room at the price asked.

Standard library only: see `farmhand.core.settings`.
"""

from __future__ import annotations

STOP, ECONOMY, HAIKU = WAYS = ("stop", "economy", "haiku")
FORM = "stop, economy or haiku, or by work class such as stop,summaries=economy,drafts=haiku"


def by_class(text: str) -> dict[str, str] | None:
    """Return the way of each work class; "" has that of all others. None: `text` is not of the form."""
    found: dict[str, str] = {}
    for part in text.split(",") if text else ():
        name, named, way = part.strip().rpartition("=")
        name = name.strip()
        if way.strip() not in WAYS or bool(named) != bool(name) or name in found:
            return None
        found[name] = way.strip()
    return {"": STOP} | found
