"""The one way out to the Messages API: checks the task token, injects the key, counts, limits, retries."""

from farmhand.meter.app import create_app
from farmhand.meter.grants import Grant, Grants, Key
from farmhand.meter.meter import Exchange, Meter, RetryPolicy
from farmhand.meter.problems import ApiError

__all__ = ["ApiError", "Exchange", "Grant", "Grants", "Key", "Meter", "RetryPolicy", "create_app"]
