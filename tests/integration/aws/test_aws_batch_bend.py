"""A batch on AWS whose budget bends: what has no room is handed in again with haiku, once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from farmhand.batch.bend import Bending
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core import shard
from farmhand.core.errors import Refused
from farmhand.core.prices import price_table
from tests.integration.aws.batches import Site, moto, site

__all__ = ["moto", "site"]

HAIKU = "claude-haiku-5-5"


def full_for(site: Site, *generations: int) -> list[str]:
    """Let each container of these generations do three tasks and find the budget spent. Return the models that ran."""
    models: list[str] = []

    def ends(_index: int, _attempt: int) -> tuple[int | None, str, int] | None:
        item = site.item()
        if int(item["generation"]) not in generations:
            return None
        site.stop("budget", "nothing is left")
        return shard.EXIT_STOPPED, "", 3

    def outcome(task: dict[str, Any]) -> dict[str, Any]:
        models.append(task["model"])
        return {"state": "succeeded"}

    site.child.ends, site.child.outcome = ends, outcome
    return models


def bending(**ways: str) -> WorkerLimits:
    return WorkerLimits(max_usd=5, bending=Bending(price_table(None), {"": "haiku", **ways}, once=True))


def lines(number: int) -> list[Any]:
    return [{"prompt": f"p{n}", "model": "sonnet", "work_class": "w" if n in (2, 7) else ""} for n in range(number)]


def test_what_has_no_room_goes_on_with_haiku_and_runs_once(site: Site) -> None:
    models = full_for(site, 0)
    assert site.command(lines(20), shard=10, limits=bending(), bends=True) is None
    assert Counter(models) == {"sonnet": 6, HAIKU: 14}
    assert sorted(result["n"] for result in site.results) == list(range(1, 21))
    assert len(site.child.ran) == len(set(site.child.ran)) == 20
    bent = [result["bent"] for result in site.results if "bent" in result]
    assert len(bent) == 14
    assert "the budget of the batch has no room for it: nothing is left" in json.dumps(bent[0])
    assert site.item()["state"] == "running"
    assert site.totals["cost_usd"] == pytest.approx(site.ledgers())


def test_with_no_room_for_haiku_it_stops_and_with_more_money_it_ends(site: Site) -> None:
    models = full_for(site, 0, 1)
    error = site.command(lines(20), shard=10, limits=bending(), bends=True)
    assert isinstance(error, Refused)
    assert "--max-usd" in error.hint
    assert 6 < len(site.results) < 20
    assert Counter(models)[HAIKU] == sum("bent" in result for result in site.results) > 0
    assert site.command(limits=bending(), bends=True) is None
    assert sorted(result["n"] for result in site.results) == list(range(1, 21))
    assert len(site.child.ran) == len(set(site.child.ran)) == 20


def test_no_container_begins_again_for_what_cannot_bend(site: Site) -> None:
    models = full_for(site, 0)
    error = site.command(lines(20), shard=10, limits=bending(w="stop"), bends=True)
    assert isinstance(error, Refused)
    assert Counter(models) == {"sonnet": 6, HAIKU: 13}
    # Line 3 was done before; line 8 waits for more money.
    assert {*range(1, 21)} - {result["n"] for result in site.results} == {8}
    containers = len(site.child.environments)
    error = site.command(limits=bending(w="stop"), bends=True)
    assert error is None
    assert (models[-1], len(site.child.environments)) == ("sonnet", containers + 1)


def test_where_nothing_can_bend_it_stops_at_once(site: Site) -> None:
    models = full_for(site, 0, 1, 2)
    error = site.command(lines(20), shard=10, limits=bending(**{"": "stop", "x": "haiku"}), bends=True)
    assert isinstance(error, Refused)
    assert (Counter(models), len(site.child.environments)) == ({"sonnet": 6}, 2)
