"""The API's limits over all children of a batch: they are one account's, and each child sees only its own answers."""

from __future__ import annotations

import pytest

from farmhand.core import shard
from farmhand.core.shard import BatchItem
from farmhand.meter.limits import FIRST_WINDOW
from tests.support.messages_api import Fault, Limits, MessagesApi
from tests.support.shards import Site, cost_pico, tasks

CHILDREN = 5
EACH = 50


def submit(site: Site, **about: float) -> None:
    site.submit(*(tasks(EACH, f"s{number}-") for number in range(CHILDREN)), **about)  # type: ignore[arg-type]


async def all_children(site: Site, attempt: int = 1) -> list[int]:
    """Start all children at the same moment, and return their exit codes."""
    containers = [await site.start(attempt, number) for number in range(CHILDREN)]
    codes = [await container.ended(120) for container in containers]
    print(*(container.log for container, code in zip(containers, codes, strict=True) if code), sep="\n")
    return codes


@pytest.mark.parametrize(
    "limits",
    [Limits(requests=100, minute_s=6), Limits(output_tokens=2000, minute_s=6)],
    ids=["requests", "output-tokens"],
)
async def test_children_share_a_limit_without_a_storm(site: Site, api: MessagesApi, limits: Limits) -> None:
    """The limit is that of two and a half minutes' work. Each child may meet it with its first window.

    After a refusal it sends one request at a time, and none before the API's retry-after, a second at least.
    """
    api.state.latency_s = 0.2
    api.limit(limits)
    submit(site, jitter_s=1.0)
    assert await all_children(site) == [shard.EXIT_DONE] * CHILDREN
    assert len(site.results()) == len(site.first()) == CHILDREN * EACH
    assert {result["state"] for result in site.results()} == {"succeeded"}
    assert cost_pico(site.results()) == site.ledgers_pico()[0]
    refused = [post for post in api.posts if post.status == 429]
    seconds = api.posts[-1].time - api.posts[0].time
    print(len(api.posts), "requests,", len(refused), "refused, in", round(seconds, 1), "s")
    assert refused
    assert len(refused) <= CHILDREN * (FIRST_WINDOW + seconds)
    assert len(api.posts) <= 2 * CHILDREN * EACH


async def test_tasks_at_once_are_those_of_all_children(site: Site, api: MessagesApi) -> None:
    api.state.latency_s = 0.3
    api.limit(Limits(requests=1_000_000))
    submit(site, concurrency=7)
    assert await all_children(site) == [shard.EXIT_DONE] * CHILDREN
    assert len(site.first()) == CHILDREN * EACH
    assert 3 <= api.state.limits.peak <= 7


async def test_a_spend_limit_stops_all_children_and_loses_nothing(site: Site, api: MessagesApi) -> None:
    api.state.latency_s = 0.5
    api.fault(Fault(kind="spend_limit", count=-1, skip=40))
    submit(site)
    assert await all_children(site) == [shard.EXIT_STOPPED] * CHILDREN
    assert (site.item().state, site.item().reason) == ("stopping", "spend_limit")
    assert len(site.results()) == len(site.first()) == 40
    # A child stops by its own refusal; what was under way then is all that is refused.
    assert len(api.posts) <= 40 + CHILDREN * FIRST_WINDOW
    api.state.faults.clear()
    site.set_item(BatchItem())
    assert await all_children(site, 2) == [shard.EXIT_DONE] * CHILDREN
    assert len(site.results()) == len(site.first()) == CHILDREN * EACH
