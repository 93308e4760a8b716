"""The account in moto, as the tests of farmhand.aws have it."""

from tests.unit.aws.conftest import account, empty

__all__ = ["account", "empty"]
