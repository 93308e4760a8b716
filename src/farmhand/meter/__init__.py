"""The only path to the Messages API: checks the task token, adds the key, counts usage, limits and retries requests."""

from farmhand.meter.budget import Budget, BudgetSpent, Reservation
from farmhand.meter.errors import ApiError
from farmhand.meter.exchange import Exchange
from farmhand.meter.grants import Charge, Grant, Grants, Key
from farmhand.meter.http_server import MeterServer
from farmhand.meter.limits import Limits
from farmhand.meter.meter import Meter, RetryPolicy
from farmhand.meter.upstream import Upstream

__all__ = [
    "ApiError",
    "Budget",
    "BudgetSpent",
    "Charge",
    "Exchange",
    "Grant",
    "Grants",
    "Key",
    "Limits",
    "Meter",
    "MeterServer",
    "Reservation",
    "RetryPolicy",
    "Upstream",
]
