"""What runs of containers come to, compared with sums made by hand, by three files of prices."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from farmhand.aws.environment.idle import network_use
from farmhand.aws.environment.spent import KEPT_S
from farmhand.aws.environment.stacks import Stack
from farmhand.aws.environment.stretches import ContainerRun, gather
from farmhand.aws.prices import CloudPrices, cloud_prices
from farmhand.core.shard import PlaceInfo
from tests.unit.aws.test_prices import MINE, TODAY

ROOT = Path(__file__).parents[3]
#: 2026-11-20 12:00 UTC.
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0


def prices(tmp_path: Path, vcpu: str, gb: str, spot: str, **of: str) -> CloudPrices:
    """The prices of an operator's own file."""
    text = MINE
    given = {"fargate_vcpu_hour": vcpu, "fargate_gb_hour": gb, "fargate_spot_factor": spot, **of}
    for name, price in given.items():
        text = re.sub(f'{name} = "[^"]*"', f'{name} = "{price}"', text)
    path = tmp_path / "aws.toml"
    path.write_text(text)
    return cloud_prices("eu-central-1", str(path), TODAY)


RUNS = [
    ContainerRun(NOON, NOON + 300),
    # Rounded up to 91 s.
    ContainerRun(NOON + 100, NOON + 190.001),
    # One that was killed after a second: a minute is billed.
    ContainerRun(NOON + 1000, NOON + 1001),
    # From one day into the next.
    ContainerRun(NOON + 12 * HOUR - 10, NOON + 12 * HOUR + 590),
    ContainerRun(NOON + 12 * HOUR, NOON + 12 * HOUR + 120),
]


@pytest.mark.parametrize(
    ("vcpu", "gb", "spot", "on_spot", "pico"),
    [
        # (300 + 91 + 60 + 600 + 120) s = 1171 s x (1 x 0.04048 + 4 x 0.004445) / 3600
        ("0.04048", "0.004445", "0.30", False, 18_950_683_333),
        # 1171 x (1 x 0.1 + 4 x 0.02) x 0.5 / 3600
        ("0.1", "0.02", "0.5", True, 29_275_000_000),
        # 1171 x (1 x 0.07 + 4 x 0.003) / 3600
        ("0.07", "0.003", "0.1", False, 26_672_777_778),
    ],
)
def test_all_runs_cost_what_they_cost_by_hand(
    tmp_path: Path, vcpu: str, gb: str, spot: str, on_spot: bool, pico: int
) -> None:
    place = PlaceInfo(name="fargate", vcpu_milli=1000, memory_mb=4096, spot=on_spot)
    found = gather(RUNS, place, prices(tmp_path, vcpu, gb, spot))
    assert [(one.runs, one.seconds) for one in found] == [(2, 391), (1, 60), (1, 600), (1, 120)]
    # Each run is rounded to a pico-dollar.
    assert sum(one.pico for one in found) == pytest.approx(pico, abs=5)
    assert [one.began_at for one in found] == [NOON, NOON + 1000, NOON + 12 * HOUR - 10, NOON + 12 * HOUR]


def test_a_public_address_is_paid_as_long_as_its_container_runs(tmp_path: Path) -> None:
    of = prices(tmp_path, "0.04", "0.005", "0.5", ipv4_hour="0.005")
    place = PlaceInfo(name="fargate", vcpu_milli=500, memory_mb=1024, spot=True, public=True)
    [one] = gather([ContainerRun(NOON, NOON + 3600)], place, of)
    # (0.5 x 0.04 + 0.005) x 0.5 and 0.005, which Spot does not lower
    assert one.pico == 17_500_000_000


def network(made_at: float, mode: str = "private", **given: str) -> Stack:
    return Stack("farmhand-test-network", "CREATE_COMPLETE", "", {"NetworkMode": mode}, given, made_at)


def test_every_hour_in_which_nothing_ran_is_counted_as_it_is_billed(tmp_path: Path) -> None:
    of = prices(tmp_path, "1", "1", "1")
    # Up for 9 h and 20 min: ten hours are billed. Something ran in the first, the fourth and the fifth.
    runs = [
        ContainerRun(NOON + 60, NOON + 120),
        ContainerRun(NOON + 3.5 * HOUR, NOON + 4.2 * HOUR),
        ContainerRun(NOON - HOUR, NOON - 60),
    ]
    use = network_use(network(NOON), of, runs, NOON + 9 * HOUR + 1200)
    assert (use.hours, use.unused_hours) == (10, 7)
    assert use.unused == ((NOON + HOUR, NOON + 3 * HOUR), (NOON + 5 * HOUR, NOON + 10 * HOUR))
    shown = use.document()
    assert (shown["usd_hour"], shown["usd_so_far"], shown["unused_usd"]) == ("0.08", "0.80", "0.56")
    assert shown["known_since"] == shown["since"] == "2026-11-20T12:00:00Z"
    assert "unused in 7 of them since 2026-11-20T12:00:00Z: US$ 0.56" in use.line()


def test_a_network_that_was_always_used_and_one_that_costs_nothing(tmp_path: Path) -> None:
    of = prices(tmp_path, "1", "1", "1")
    assert network_use(network(NOON), of, [ContainerRun(NOON, NOON + 5 * HOUR)], NOON + 5 * HOUR).unused == ()
    assert network_use(network(NOON, "public"), of, [], NOON + 5 * HOUR).unused_pico == 0
    of = prices(tmp_path, "1", "1", "1", nat_hour="0.045", ipv4_hour="0.005")
    nat = network_use(network(NOON, Ipv4="true", Federation="true"), of, [], NOON + HOUR)
    # Five endpoints, a NAT gateway and its address.
    assert nat.pico_hour == 150_000_000_000


def test_a_network_that_was_removed_has_the_hours_it_was_up(tmp_path: Path) -> None:
    of = prices(tmp_path, "1", "1", "1")
    # Up for 2 h and 5 min, five days ago; something ran in the second hour, and in another network's time.
    gone = replace(network(NOON, Ipv4="false"), outputs={}, removed_at=NOON + 2 * HOUR + 300)
    gone = replace(gone, parameters=gone.parameters | {"NetworkMode": "private"})
    runs = [ContainerRun(NOON + 1.5 * HOUR, NOON + 1.6 * HOUR), ContainerRun(NOON + 5 * HOUR, NOON + 6 * HOUR)]
    use = network_use(gone, of, runs, NOON + 120 * HOUR)
    assert (use.mode, use.hours, use.unused_hours) == ("private", 3, 2)
    assert use.document()["until"] == "2026-11-20T14:05:00Z"
    assert use.line() == (
        "a private network was up from 2026-11-20T12:00:00Z to 2026-11-20T14:05:00Z: 3 h, US$ 0.24; "
        "unused in 2 of them since 2026-11-20T12:00:00Z: US$ 0.16"
    )


def test_hours_that_nobody_knows_any_more_are_not_called_unused(tmp_path: Path) -> None:
    use = network_use(network(NOON), prices(tmp_path, "1", "1", "1"), [], NOON + KEPT_S + 10 * HOUR)
    assert (use.hours, use.unused_hours) == (30 * 24 + 10, 30 * 24)
    assert use.known_since == NOON + 10 * HOUR
    assert f"ExpirationInDays: {KEPT_S // 86400}}}" in (ROOT / "aws" / "data.yaml").read_text()
