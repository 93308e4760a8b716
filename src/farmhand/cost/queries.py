"""Queries of the store: sums grouped by everything that the figures distinguish.

SQL scans the rows once and adds up those with the same day, host, model and prices; all else is sums of these rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, datetime
from operator import attrgetter
from typing import NamedTuple, TypeVar

import msgspec

from farmhand.core.errors import UsageError
from farmhand.core.prices import PriceTable
from farmhand.core.task import Usage
from farmhand.cost.overhead import OVERHEAD_TOKENS
from farmhand.cost.store import GATEWAY, CostStore

DAY_S = 86400
#: Keys for grouping; `label:NAME` is also allowed.
KEYS = ("model", "day", "batch", "label", "host", "engine", "place", "work-class", "pot")
#: SQL for where a row's work ran. A ledger of AWS is named by its address there, and only AWS Batch has batches.
PLACE = (
    f"(SELECT CASE WHEN engine = '{GATEWAY}' THEN '{GATEWAY}' WHEN l.host = 'docker' THEN 'docker'"  # noqa: S608
    " WHEN substr(l.uuid, 1, 5) = 's3://' THEN iif(batch = '', 'fargate', 'aws-batch') ELSE 'farm' END"
    " FROM ledger AS l WHERE l.id = ledger)"
)
_COLUMNS = {"batch": "batch", "work-class": "work_class", "label": "labels", "place": PLACE, "pot": "pot"}
#: SQL for the prompt tokens of a request.
PROMPT = "(input_tokens + cache_creation_input_tokens + cache_read_input_tokens)"


class Spend(msgspec.Struct):
    """Sums over requests with the same prices. `day` counts from 1970 (UTC); `key` is the value they are grouped by.

    `prompt` is a length in tokens that represents all their prompts. `pico` is the recorded cost, None if unknown.
    """

    day: int
    host: str
    key: str
    model: str
    engine: str
    economy: bool
    prompt: int
    usage: Usage
    pico: int | None


class Work(msgspec.Struct):
    """Sums over finished tasks with the same outcome. The first five fields are as in `Spend`."""

    day: int
    host: str
    key: str
    model: str
    engine: str
    state: str
    error: str
    tasks: int
    retries: int
    uncertain: int


class Sums(NamedTuple):
    """All spending and all finished work."""

    spend: list[Spend]
    work: list[Work]

    def since(self, day: int) -> Sums:
        """Return the rows from this day (since 1970) on."""
        return Sums([row for row in self.spend if row.day >= day], [row for row in self.work if row.day >= day])

    def of_farm(self) -> Sums:
        """Return the rows without the gateway's turns, which are no work of the farm's."""
        return Sums(
            [row for row in self.spend if row.engine != GATEWAY], [row for row in self.work if row.engine != GATEWAY]
        )

    @property
    def first_day(self) -> int | None:
        """Return the first day with any spending or work; None if there is none."""
        return min([*(row.day for row in self.spend), *(row.day for row in self.work)], default=None)

    def spent(self, first: int, end: int) -> int:
        """Return the pico-dollars of requests from day `first` up to, not including, day `end`."""
        return sum(row.pico or 0 for row in self.spend if first <= row.day < end)


def read(store: CostStore, table: PriceTable, by: str = "") -> Sums:
    """Read all sums, keyed by `by`: one of KEYS, `label:NAME`, or "". Raises UsageError."""
    key, values = _key(by)
    edges = sorted({edge - less for edge in table.thresholds for less in (0, OVERHEAD_TOKENS) if edge >= less})
    hosts = dict(store.rows("SELECT id, host FROM ledger"))
    names = Usage.__struct_fields__
    day, number = f"CAST(created_at / {DAY_S} AS INTEGER)", band(edges)
    # SQLite sorts the rows to group them. It compares fastest where one integer in front tells most of them apart.
    apart = f"(({day} << 32) + ledger) * {4 * len(edges) + 4} + ({number}) * 4 + economy * 2 + (pico IS NULL)"
    charges = store.rows(
        f"SELECT {day}, ledger, {key}, model, engine, economy, {number},"  # noqa: S608  (names and numbers from here)
        f" {', '.join(f'sum({name})' for name in names)}, sum(pico) FROM charge GROUP BY {apart}, 3, 4, 5",
        values,
    )
    tasks = store.rows(
        f"SELECT CAST(finished_at / {DAY_S} AS INTEGER), ledger, {key}, model, engine, state, error,"  # noqa: S608
        " count(*), sum(retries), sum(uncertain) FROM done GROUP BY 1, 2, 3, 4, 5, 6, 7",
        values,
    )
    lengths = (0, *(edge + 1 for edge in edges))
    return Sums(
        [
            Spend(
                *(day, hosts[ledger], text, model, engine, bool(economy), lengths[number]),
                Usage(**dict(zip(names, sizes, strict=True))),
                pico,
            )
            for day, ledger, text, model, engine, economy, number, *sizes, pico in charges
        ],
        [Work(day, hosts[ledger], *rest) for day, ledger, *rest in tasks],
    )


def band(edges: Iterable[int]) -> str:
    """Return SQL for the number of these prompt lengths a request exceeds. Prices are the same within a band."""
    return " + ".join(f"({PROMPT} > {edge:d})" for edge in edges) or "0"


def _key(by: str) -> tuple[str, tuple[str, ...]]:
    """Return the SQL of a row's key and its parameters; an empty SQL string for keys that every row has anyway."""
    if by in ("", *KEYS):
        return _COLUMNS.get(by, "''"), ()
    name = by.removeprefix("label:")
    if not by.startswith("label:") or not name or '"' in name:
        raise UsageError(f"--by {by!r}: not something to group by", hint=f"one of {', '.join(KEYS)}, label:NAME")
    return "iif(labels = '', '', coalesce(json_extract(labels, ?), ''))", (f'$."{name}"',)


def day_text(day: int) -> str:
    """Return a day (since 1970) in ISO format."""
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()


def price_groups(
    spend: Iterable[Spend], table: PriceTable, place: Callable[[Spend], Hashable] = lambda _row: None
) -> list[Spend]:
    """Merge rows with the same `place` into the fewest that can still be priced exactly."""
    found: dict[Hashable, Spend] = {}
    changes = table.changes
    for row in spend:
        period = bisect_right(changes, row.day)
        key = (place(row), period, row.model, row.engine, row.economy, row.prompt, row.pico is None)
        if (known := found.get(key)) is None:
            found[key] = msgspec.structs.replace(row, usage=msgspec.structs.replace(row.usage))
        else:
            known.usage.add(row.usage)
            known.pico = None if known.pico is None or row.pico is None else known.pico + row.pico
    return list(found.values())


class Part(msgspec.Struct, kw_only=True):
    """The sums of one group: money, tokens, tasks. `unpriced` of the `requests` have no known cost.

    `refused` counts tasks that did not fit into a budget (of their batch or the host's day); `tasks` excludes them.
    `tasks` includes the `failed` and the `cancelled`.
    `compute_pico` is what containers on AWS cost besides; None where it cannot be told apart by group.
    """

    key: str = ""
    spent_pico: int = 0
    requests: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_creation_1h_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    tasks: int = 0
    failed: int = 0
    cancelled: int = 0
    retries: int = 0
    uncertain: int = 0
    refused: int = 0
    compute_pico: int | None = None

    @property
    def prompt_tokens(self) -> int:
        """Return the number of tokens sent to the API."""
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens


_Place = TypeVar("_Place", bound=Hashable)


def totals(sums: Sums, place: Callable[[Spend | Work], _Place]) -> dict[_Place, Part]:
    """Add up the sums by the `place` of each row."""
    found: defaultdict[_Place, Part] = defaultdict(Part)
    for spend in sums.spend:
        part, requests = found[place(spend)], spend.usage.requests
        part.spent_pico += spend.pico or 0
        part.unpriced += requests if spend.pico is None else 0
        for name in Usage.__struct_fields__:
            setattr(part, name, getattr(part, name) + getattr(spend.usage, name))
    for work in sums.work:
        part = found[place(work)]
        part.tasks += 0 if work.state == "refused" else work.tasks
        part.failed += work.tasks if work.state == "failed" else 0
        part.cancelled += work.tasks if work.state == "cancelled" else 0
        part.refused += work.tasks if work.state == "refused" else 0
        part.retries += work.retries
        part.uncertain += work.uncertain
    return found


def parts(sums: Sums, by: str) -> list[Part]:
    """Return the sums by group, which add up to the whole. Days and hosts are sorted by name, all others by cost.

    `by` is the key the sums were read with, or a field of every row: day, host, model, engine, or "" for one group.
    """
    ways: dict[str, Callable[[Spend | Work], str]] = {"": lambda _row: "", "day": lambda row: day_text(row.day)}
    ways |= {name: attrgetter(name) for name in ("host", "model", "engine")}
    found = totals(sums, ways.get(by, attrgetter("key")))
    for key, part in found.items():
        part.key = key
    by_cost = by not in ("day", "host")
    return sorted(found.values(), key=lambda part: (-part.spent_pico if by_cost else 0, part.key))


class Unpriced(msgspec.Struct, kw_only=True):
    """Requests to one model whose cost is not in the ledgers."""

    model: str
    requests: int
    input_tokens: int
    output_tokens: int


def unpriced(sums: Sums) -> list[Unpriced]:
    """Return all requests without a known cost, by model. No sum includes them."""
    unknown = Sums([row for row in sums.spend if row.pico is None], [])
    return [
        Unpriced(model=model, requests=part.requests, input_tokens=part.prompt_tokens, output_tokens=part.output_tokens)
        for model, part in sorted(totals(unknown, lambda row: row.model).items())
    ]
