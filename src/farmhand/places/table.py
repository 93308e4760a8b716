"""The table of places. A new place is a file in this directory, a row here, and its name in core.settings.

Places on AWS are in farmhand.aws, and are imported when they are made: nothing else needs boto3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import cast

from farmhand.core.errors import UsageError
from farmhand.places import docker
from farmhand.places.base import Place, PlaceSettings
from farmhand.places.farm import FarmPlace


def _imported(module: str, settings: PlaceSettings) -> Place:
    """Return the place that `module` makes with these settings."""
    return cast(Place, import_module(module).place(settings))


def _of_one_task(name: str, settings: PlaceSettings) -> Place:
    raise UsageError(f"the place {name} is for one task", hint="a batch runs at --place aws-batch")


PLACES: dict[str, Callable[[PlaceSettings], Place]] = {
    FarmPlace.name: FarmPlace,
    docker.NAME: docker.place,
    "fargate": partial(_of_one_task, "fargate"),
    "aws-batch": partial(_imported, "farmhand.aws.places.batch_place"),
}
