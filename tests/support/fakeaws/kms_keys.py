"""A symmetric KMS key needs no RSA key: moto makes one for each, and that takes longer than the rest of a stack."""

from __future__ import annotations

from functools import cache
from typing import Any

from moto.kms import models, utils


def change() -> None:
    """Let all symmetric keys have one and the same RSA key, which nothing uses; others get their own, as ever."""
    one_for_all = cache(utils.generate_private_key)

    def private_key(spec: str) -> Any:
        return one_for_all(spec) if spec == utils.KeySpec.SYMMETRIC_DEFAULT else utils.generate_private_key(spec)

    models.generate_private_key = private_key
