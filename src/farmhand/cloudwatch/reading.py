"""What the agent says on its socket: what was charged, from the ledger, and the counts and gauges of this moment.

Money comes from the ledger's rows, each with a number: they survive a restart of either side, and are read once.
The API's errors are counters of the agent's process, which begin again with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, NoReturn

import msgspec

from farmhand.core import money
from farmhand.core.typed import ready
from farmhand.wire import message, schema
from farmhand.wire.client import Client
from farmhand.wire.metrics import read_text

#: Charges of a call. Each is a minute of its own at most, and a minute is two of the 1,000 data that a call may have.
PAGE = 300
#: Numbers of charges are below this. Source: agent/http/server.py.
_NO_CHARGE = 2**53


@dataclass(frozen=True)
class AgentSample:
    """The figures of one moment. `errors` by kind since `started` (Unix seconds); `refused` is a number of keys."""

    ledger: str
    started: float
    errors: dict[str, int]
    queued: int
    refused: int


class ChargedRequest(msgspec.Struct, frozen=True):
    """What a line of `GET /v1/charges` says of money. `cost_usd` is None without a price."""

    charge_id: Annotated[int, msgspec.Meta(ge=1, lt=_NO_CHARGE)]
    created_at: schema.Moment
    cost_usd: Decimal | None = None
    requests: schema.Count = 1

    def __post_init__(self) -> None:
        if self.cost_usd is not None and not 0 <= self.cost_usd <= schema.MAX_COST_USD:
            raise ValueError("a cost that is out of range")

    @property
    def pico(self) -> int:
        """The cost in pico-dollars, 0 if it is not known."""
        return money.pico(self.cost_usd or Decimal(0))


def read_sample(client: Client) -> AgentSample:
    """Ask for the counts and gauges of now. Raise WireError."""
    status = client.status()
    ledger = (status.get("ledger") or {}).get("id")
    if not ledger:
        _bad(client, "a status without the ledger's id")
    found = list(_samples(client))
    started = [value for name, _, value in found if name == "farmhand_start_time_seconds"]
    if len(started) != 1:
        _bad(client, "metrics without the time of the agent's start")
    errors: Counter[str] = Counter()
    for name, kind, value in found:
        if name == "farmhand_api_errors_total":
            errors[kind] += int(value)
    waiting = int(status.get("queued") or 0) + int(status.get("awaiting_key") or 0)
    refused = sum(key["state"] == "refused" for key in status.get("keys") or [])
    return AgentSample(str(ledger), started[0], dict(errors), waiting, refused)


def _samples(client: Client) -> Iterator[tuple[str, str, float]]:
    """Yield name, label `kind` ("" for none) and value of each sample of `GET /metrics`. Raise WireError."""
    from prometheus_client.parser import text_string_to_metric_families

    text = read_text(client)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if not 0 <= sample.value < _NO_CHARGE:
                    _bad(client, f"metrics with a value that is out of range: {sample.name:.80}")
                yield sample.name, sample.labels.get("kind", "")[:64], sample.value
    except (ValueError, KeyError, IndexError) as error:
        _bad(client, f"metrics that cannot be read: {type(error).__name__}")


def read_charges(client: Client, after: int) -> list[ChargedRequest]:
    """Return the next charges after number `after`, at most PAGE of them, in order. Raise WireError."""
    found: list[ChargedRequest] = []
    for line in client.charges(after, PAGE):
        charge = _charge(client, line)
        if charge.charge_id <= (found[-1].charge_id if found else after):
            _bad(client, "charges that are out of order")
        found.append(charge)
    return found


def last_charge(client: Client) -> int:
    """Return the number of the newest charge, 0 if there is none, by halving what it can be. Raise WireError."""
    low, high = 0, _NO_CHARGE  # it is at least `low`, and below `high`
    while high - low > 1:
        middle = (low + high) // 2
        # A charge after `middle - 1` is one of `middle` at least.
        if found := list(client.charges(middle - 1, 1)):
            low = max(middle, _charge(client, found[0]).charge_id)
        else:
            high = middle
    return low


def _charge(client: Client, line: bytes) -> ChargedRequest:
    try:
        return msgspec.json.decode(line, type=ready(ChargedRequest))
    except ValueError as error:
        _bad(client, f"a charge that cannot be read: {error}")


def _bad(client: Client, what: str) -> NoReturn:
    raise message.bad_answer(client.transport.name, what)
