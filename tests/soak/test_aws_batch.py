"""5,000 lines on AWS Batch in real containers: the design's check 9."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.aws_site import AwsSite
from tests.support.storm import Storm


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsSite]:
    with AwsSite(tmp_path_factory.mktemp("aws"), at_once=6) as made:
        yield made


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_five_thousand_lines_twenty_kills_ten_interruptions_and_faults(
    site: AwsSite, tmp_path: Path, seed: int
) -> None:
    storm = Storm(site, tmp_path, f"storm{seed}", number=5000, shard=125, seed=seed)
    storm.faults(8, among=40)
    site.api.latency(ms=4000)
    with storm.interrupting(10, most_s=12, working=False):
        storm.kill(4, least_s=0.5, most_s=3)
        storm.kill(16, least_s=2, most_s=10)
        assert storm.killed == 20
        whole = storm.end()
    storm.check(whole)
    hit = storm.hit()
    assert min(hit[service] for service in ("s3", "dynamodb", "batch")) >= 3, hit
    assert hit.total() >= 15, hit
    site.aws.faults()
