"""What AWS costs, compared with sums made by hand."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from farmhand.aws.prices import Extras, cloud_prices, estimate_lines
from farmhand.core.errors import NotConfigured

TODAY = date(2026, 11, 29)
MINE = """
as_of = "2026-11-01"
[regions.eu-central-1]
fargate_vcpu_hour = "0.1"
fargate_gb_hour = "0.01"
fargate_spot_factor = "0.5"
endpoint_hour = "0.02"
endpoint_gb = "0"
nat_hour = "0"
nat_gb = "0"
ipv4_hour = "0"
key_month = "2"
secret_month = "1"
alarm_month = "1"
ecr_gb_month = "0"
s3_gb_month = "0"
log_gb = "0"
"""


def test_a_task_costs_its_size_and_its_time_to_the_micro_dollar() -> None:
    prices = cloud_prices("us-east-1", today=TODAY)
    # (1 x 0.04048 + 4 x 0.004445) x 300 / 3600
    assert round(prices.task_usd(Decimal(1), 4096, Decimal(300)), 6) == Decimal("0.004855")
    assert round(prices.task_usd(Decimal(1), 4096, Decimal(300), spot=True), 6) == Decimal("0.001456")


def test_a_minute_is_the_least_and_nothing_costs_nothing() -> None:
    prices = cloud_prices("us-east-1", today=TODAY)
    assert prices.task_usd(Decimal("0.5"), 1024, Decimal(1)) == prices.task_usd(Decimal("0.5"), 1024, Decimal(60))
    assert prices.task_usd(Decimal("0.5"), 1024, Decimal(0)) == 0


@pytest.mark.parametrize(
    ("mode", "ipv4", "month"),
    # key 1.00, secrets 1.60, alarms 0.90, image 0.03; endpoints 4 x 0.01 x 730 and an alarm; NAT 0.05 x 730
    [("public", False, 3.53), ("private", False, 32.83), ("private", True, 69.33)],
)
def test_what_stands_idle(mode: str, ipv4: bool, month: float) -> None:
    estimate = cloud_prices("us-east-1", today=TODAY).estimate(mode, ipv4=ipv4)
    assert estimate["usd_month"] == f"{month:.2f}"
    assert f"{month:.2f} a month" in "\n".join(estimate_lines(estimate, mode))


@pytest.mark.parametrize(
    ("extras", "month", "said"),
    [
        # 3.53, and 10 metrics x 0.10 for each host
        (Extras(hosts=1), 4.53, "alarms of 1 farm host 1.00"),
        (Extras(hosts=3), 6.53, "alarms of 3 farm hosts 3.00"),
        # 0.3 GB x 0.10
        (Extras(baked=True), 3.56, "image with the credential 0.03"),
        (Extras(hosts=2, baked=True, federation=True), 5.56, "alarms of 2 farm hosts 2.00, image with the credential"),
    ],
)
def test_what_is_asked_for_besides_is_in_the_price(extras: Extras, month: float, said: str) -> None:
    prices = cloud_prices("us-east-1", today=TODAY)
    estimate = prices.estimate("public", extras=extras)
    assert estimate["usd_month"] == f"{month:.2f}"
    assert said in "\n".join(estimate_lines(estimate, "public"))
    # With an endpoint of sts in a private network: 0.01 x 730.
    private = prices.estimate("private", extras=extras)["network_usd_month"]
    assert private == ("36.60" if extras.federation else "29.30")


def test_an_operators_own_prices(tmp_path: Path) -> None:
    own = tmp_path / "aws.toml"
    own.write_text(MINE)
    prices = cloud_prices("eu-central-1", str(own), TODAY)
    assert prices.task_usd(Decimal(2), 2048, Decimal(3600), spot=True) == Decimal("0.11")
    assert prices.note == ""
    assert cloud_prices("us-east-1", str(own), TODAY).of["key_month"] == 1


def test_doubtful_prices_say_so() -> None:
    assert "no prices of eu-west-9: those of us-east-1" in cloud_prices("eu-west-9", today=TODAY).note
    assert "are of 2026-06-30, 215 days old" in cloud_prices("us-east-1", today=date(2027, 1, 31)).note
    assert "are of 2026-06-30, which is still to come" in cloud_prices("us-east-1", today=date(2020, 1, 1)).note


def test_a_file_without_the_region_does_not_pass_for_one_with_it(tmp_path: Path) -> None:
    own = tmp_path / "aws.toml"
    own.write_text(MINE.replace("eu-central-1", "eu_central-1"))
    note = cloud_prices("us-east-1", str(own), TODAY).note
    assert note == f"{own} has no prices of us-east-1, only of eu_central-1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "as_of is missing"),
        ("as_of = 1", "not a price table"),
        (MINE.replace('"0.1"', '"many"'), "fargate_vcpu_hour is 'many', not US"),
        (MINE.replace('"0.1"', '"1e999999"'), "fargate_vcpu_hour is 1e.999999, not US"),
        (MINE.replace('"0.1"', '"1e-999999"'), "fargate_vcpu_hour is 1e-999999, not US"),
        (MINE.replace('"0.1"', '"1000001"'), "fargate_vcpu_hour is 1.+, not US"),
        (MINE.replace('"0.1"', '"nan"'), "fargate_vcpu_hour is NaN, not US"),
        (MINE.replace('"0.5"', '"5"'), "fargate_spot_factor is 5, not at most 1"),
        (MINE.replace('"0.1"', '"-1"'), "fargate_vcpu_hour is -1"),
        (MINE.replace('log_gb = "0"', ""), "log_gb is missing"),
        ("\x00", "not a price table"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    own = tmp_path / "aws.toml"
    own.write_text(text)
    with pytest.raises(NotConfigured, match=said):
        cloud_prices("eu-central-1", str(own), TODAY)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="cannot be read"):
        cloud_prices("us-east-1", str(tmp_path / "none.toml"))
