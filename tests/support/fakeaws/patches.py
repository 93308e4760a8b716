"""All changes to moto, in one place to begin them."""

from __future__ import annotations

from functools import partial

from moto import backends

from tests.support import aws_templates
from tests.support.fakeaws import (
    alarms,
    batch,
    ecr,
    ecs,
    functions,
    identity,
    kms_keys,
    s3,
    secret_versions,
    stack_engine,
    stack_halves,
    stack_network,
    stack_types,
)


def change_moto() -> None:
    """Change the classes of moto in this process. OPTIONS must be set."""
    aws_templates.read_once()
    # It lists moto's directory for each request.
    backends.list_of_moto_modules = partial(iter, tuple(backends.list_of_moto_modules()))
    for module in (
        ecs,
        batch,
        ecr,
        functions,
        identity,
        kms_keys,
        s3,
        secret_versions,
        alarms,
        stack_types,
        stack_halves,
        stack_network,
        stack_engine,
    ):
        module.change()
