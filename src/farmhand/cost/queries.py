"""What is asked of the store: sums by price, by day, by whatever the operator groups by. SQL does the summing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from farmhand.core.errors import UsageError
from farmhand.core.prices import PriceTable
from farmhand.cost.overhead import OVERHEAD_TOKENS
from farmhand.cost.savings import Group
from farmhand.cost.store import CostStore

DAY_S = 86400
#: What can be grouped by; `label:NAME` too.
KEYS = ("model", "day", "batch", "label", "host", "engine", "work-class")

#: SQL over rows of the sums of tasks: those that were begun, of them those that failed, and those that were refused.
FAILED, REFUSED = (
    f"iif(state IS (SELECT id FROM word WHERE text = '{state}'), tasks, 0)"  # noqa: S608  (words from the next line)
    for state in ("failed", "refused")
)
TASKS = f"(tasks - {REFUSED})"


def breaks(table: PriceTable) -> tuple[int, ...]:
    """The prompt lengths at which a bill changes its prices: as sent, and with the overhead of plain `claude -p`."""
    return tuple(sorted({edge - less for edge in table.thresholds for less in (0, OVERHEAD_TOKENS)}))


def price_groups(store: CostStore, table: PriceTable, since_day: int) -> list[Group]:
    """All requests since a day, in as few groups as can be priced exactly."""
    span = " + ".join(f"(day >= {day:d})" for day in table.changes) or "0"
    # A request's model and engine are few words; what else tells requests apart is summed over.
    query = (
        f"SELECT min(day), (SELECT text FROM word WHERE id = model),"  # noqa: S608  (numbers of the price table)
        f" (SELECT text FROM word WHERE id = engine), economy, band,"
        f" sum(requests), sum(fresh), sum(output), sum(written), sum(written_1h), sum(read), sum(pico), priced"
        f" FROM spend WHERE day >= ? GROUP BY {span}, model, engine, economy, band, priced"
    )
    return [
        Group(
            at=day * DAY_S,
            model=model,
            engine=engine,
            economy=bool(economy),
            prompt=store.breaks[band - 1] + 1 if band else 0,
            requests=requests,
            fresh=fresh,
            output=output,
            written=written,
            written_1h=written_1h,
            read=read,
            pico=pico if priced else None,
        )
        for day, model, engine, economy, band, requests, fresh, output, written, written_1h, read, pico, priced in (
            store.rows(query, (since_day,))
        )
    ]


class Part(msgspec.Struct, kw_only=True):
    """The sums of one group: money, tokens, tasks. Of `requests` `unpriced` ones have no known cost.

    `refused` are tasks that a budget of their batch or of the host's day had no room for, beside `tasks`.
    """

    key: str
    spent_pico: int
    requests: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_creation_1h_input_tokens: int
    cache_read_input_tokens: int
    tasks: int
    failed: int
    retries: int
    uncertain: int
    refused: int


def parts(store: CostStore, by: str, since_day: int) -> list[Part]:
    """The sums since a day, grouped; each request and each task is in one group, so they add up to the whole.

    `by` is one of KEYS, or `label:NAME` for the values of one label; "" stands for all in one. Days and hosts are in
    their order, all else with the dearest first. Raises UsageError.
    """
    return list(_parts(store, by, since_day))


def _parts(store: CostStore, by: str, since_day: int) -> Iterator[Part]:
    key, values = _key(by)
    labels = by == "label" or by.startswith("label:")
    spend, work = ("spend_label", "work_label") if labels else ("spend", "work")
    order = "1" if by in ("day", "host") else "2 DESC, 1"
    query = (
        f"SELECT key, sum(pico), sum(requests), sum(unpriced), sum(fresh), sum(output),"  # noqa: S608  (names from this module)
        f" sum(written), sum(written_1h), sum(read), sum(tasks), sum(failed), sum(retries), sum(uncertain),"
        " sum(refused) FROM ("
        f"SELECT {key} AS key, pico, requests, iif(priced, 0, requests) AS unpriced, fresh, output, written,"
        f" written_1h, read, 0 AS tasks, 0 AS failed, 0 AS retries, 0 AS uncertain, 0 AS refused"
        f" FROM {spend} AS x WHERE day >= ?"
        f" UNION ALL SELECT {key}, 0, 0, 0, 0, 0, 0, 0, 0, {TASKS}, {FAILED}, retries, uncertain, {REFUSED}"
        f" FROM {work} AS x WHERE day >= ?) GROUP BY key ORDER BY {order}"
    )
    for row in store.rows(query, (*values, since_day, *values, since_day)):
        yield Part(**dict(zip(Part.__struct_fields__, (_text(row[0]), *row[1:]), strict=True)))


def _text(key: Any) -> str:
    return "" if key is None else str(key)


def _key(by: str) -> tuple[str, tuple[str, ...]]:
    """The SQL of a group's key over a row `x` of the sums, and the values of its marks."""

    def word(column: str) -> str:
        return f"(SELECT text FROM word WHERE id = x.{column})"  # noqa: S608  (names from below)

    plain = {
        "": "''",
        "day": "date(x.day * 86400, 'unixepoch')",
        "host": "(SELECT host FROM ledger WHERE id = x.ledger)",
        "model": word("model"),
        "engine": word("engine"),
        "batch": word("batch"),
        "work-class": word("work_class"),
        "label": word("labels"),
    }
    if by in plain:
        return plain[by], ()
    name = by.removeprefix("label:")
    if not by.startswith("label:") or not name or '"' in name:
        raise UsageError(f"--by {by!r}: not something to group by", hint=f"one of {', '.join(KEYS)}, label:NAME")
    text = word("labels")
    return f"iif({text} = '', '', coalesce(json_extract({text}, ?), ''))", (f'$."{name}"',)


def first_day(store: CostStore) -> int | None:
    """The first day (since 1970) that anything was spent or done on; None where nothing was."""
    query = "SELECT min(day) FROM (SELECT min(day) AS day FROM spend UNION ALL SELECT min(day) FROM work)"
    found = store.rows(query)[0][0]
    return None if found is None else int(found)


def spent(store: CostStore, first: int, end: int) -> int:
    """Pico-dollars of the requests from the day `first` until before the day `end`."""
    return int(store.rows("SELECT coalesce(sum(pico), 0) FROM spend WHERE day >= ? AND day < ?", (first, end))[0][0])


class Unpriced(msgspec.Struct, kw_only=True):
    """Requests to one model whose cost the ledgers do not know."""

    model: str
    requests: int
    input_tokens: int
    output_tokens: int


def unpriced(store: CostStore, since_day: int) -> list[Unpriced]:
    """All requests without a known cost, by model. What they cost is not in any sum."""
    query = (
        "SELECT (SELECT text FROM word WHERE id = model), sum(requests), sum(fresh + written + read), sum(output)"
        " FROM spend WHERE priced = 0 AND day >= ? GROUP BY model ORDER BY 1"
    )
    return [
        Unpriced(model=model, requests=requests, input_tokens=given, output_tokens=output)
        for model, requests, given, output in store.rows(query, (since_day,))
    ]
