"""What a ledger must be in itself, whatever happened: places, sums, tallies, attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

from farmhand.agent.store.records import USAGE
from farmhand.core.money import pico
from farmhand.core.prices import price_table
from farmhand.core.task import FINAL_STATES
from tests.chaos.story import Row, Story

_STATES = ("queued", "awaiting_key", "running", "succeeded", "failed", "cancelled")


def check(story: Story) -> Iterator[str]:
    """All that is wrong in the ledger."""
    yield from _places(story)
    for row in story.ledger["task"]:
        yield from _sums(story, row)
        yield from _attempts(story, row)
        yield from _reservations(story, row)
    yield from _prices(story)
    yield from _tallies(story)


def _places(story: Story) -> Iterator[str]:
    """The places of finished tasks are 1, 2, 3, … without a gap."""
    places = sorted(row["done_no"] for row in story.ledger["task"] if row["done_no"] is not None)
    if places != list(range(1, len(places) + 1)):
        yield f"places: {places}"


def _sums(story: Story, row: Row) -> Iterator[str]:
    charges = [one for one in story.ledger["charge"] if one["task_seq"] == row["seq"]]
    for name in (*USAGE, "cost_pico"):
        total = sum(one[name] for one in charges)
        if row[name] != total:
            yield f"sums: {row['id']} has {name} {row[name]}, its charges {total}"


def _attempts(story: Story, row: Row) -> Iterator[str]:
    attempts = sorted(
        (one for one in story.ledger["attempt"] if one["task_seq"] == row["seq"]), key=lambda one: int(one["number"])
    )
    outcomes = Counter(one["outcome"] for one in attempts)
    if [one["number"] for one in attempts] != list(range(1, len(attempts) + 1)):
        yield f"attempts: those of {row['id']} are numbered {[one['number'] for one in attempts]}"
    if row["attempts"] != len(attempts) - outcomes["parked"]:
        yield f"attempts: {row['id']} counts {row['attempts']}, its attempts are {dict(outcomes)}"
    if outcomes["running"] and row["state"] in FINAL_STATES:
        yield f"attempts: {row['id']} is {row['state']}, and an attempt of it still runs"
    if outcomes["succeeded"] > 1:
        yield f"run twice: {row['id']} succeeded {outcomes['succeeded']} times"
    if row["state"] == "succeeded" and (not attempts or attempts[-1]["outcome"] != "succeeded"):
        yield f"attempts: {row['id']} succeeded, its attempts are {dict(outcomes)}"


def _reservations(story: Story, row: Row) -> Iterator[str]:
    """What is uncertain stays reserved, and nothing else does."""
    held = [one for one in story.ledger["reservation"] if one["task_seq"] == row["seq"]]
    if len(held) != row["uncertain"]:
        yield f"reserved: {row['id']} has {row['uncertain']} uncertain requests, {len(held)} are reserved for"
    for one in held:
        if one["pico"] is None or one["pico"] < 0:
            yield f"reserved: {row['id']} has {one['pico']} pico-dollars reserved"


def _prices(story: Story) -> Iterator[str]:
    """Every charge has the price of its tokens, half of it where it was economy."""
    from farmhand.core.task import Usage

    prices = price_table()
    for charge in story.ledger["charge"]:
        usage = Usage(**{name: charge[name] for name in USAGE})
        cost = prices.cost(charge["model"], usage, economy=bool(charge["economy"]))
        if charge["cost_pico"] != cost:
            yield f"prices: charge {charge['no']} is {charge['cost_pico']}, its tokens cost {cost}"
    told = {one["charge_id"]: pico(Decimal(str(one["cost_usd"]))) for one in story.charges}
    for charge in story.ledger["charge"]:
        if told.get(charge["no"], charge["cost_pico"]) != charge["cost_pico"]:
            yield f"prices: the wire tells another cost of charge {charge['no']}"
    numbers = Counter(one["request_id"] for one in story.ledger["charge"])
    for request_id, count in numbers.items():
        if count > 1:
            yield f"invented: {request_id!r} is charged {count} times"


def _tallies(story: Story) -> Iterator[str]:
    for tally in story.ledger["tally"]:
        rows = [row for row in story.ledger["task"] if row["batch"] == tally["batch"]]
        states = Counter(row["state"] for row in rows)
        right = {state: states[state] for state in _STATES} | {
            "cost_pico": sum(row["cost_pico"] or 0 for row in rows),
            "unpriced": sum(row["cost_pico"] is None for row in rows),
            "uncertain": sum(row["uncertain"] for row in rows),
            "last_done": max((row["done_no"] or 0 for row in rows), default=0),
        }
        wrong = {name: (tally[name], value) for name, value in right.items() if tally[name] != value}
        if wrong:
            yield f"tallies: batch {tally['batch']!r}: {wrong} (kept, counted)"
