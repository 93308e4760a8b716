"""The table of places. A new place is a file in this directory and a row here."""

from __future__ import annotations

from collections.abc import Callable

from farmhand.places.base import Place, PlaceSettings
from farmhand.places.farm import FarmPlace

PLACES: dict[str, Callable[[PlaceSettings], Place]] = {FarmPlace.name: FarmPlace}
