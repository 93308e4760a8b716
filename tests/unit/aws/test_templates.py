"""The templates: what cfn-lint and Fargate's rules say, what CloudFormation takes, and what the prices count."""

from __future__ import annotations

import re

import pytest
from cfnlint.api import lint_file

from farmhand.aws import prices
from farmhand.aws.environment import readiness
from farmhand.aws.environment.stacks import TEMPLATE_BYTES
from tests.support.cloud import PARTS, ROOT, TEMPLATE_NAMES, TEMPLATES
from tests.support.fargate_rules.template import template_faults


@pytest.mark.parametrize("part", TEMPLATE_NAMES)
def test_cfn_lint_has_nothing_to_say(part: str) -> None:
    assert [str(found) for found in lint_file(TEMPLATES / f"{part}.yaml")] == []


@pytest.mark.parametrize("part", TEMPLATE_NAMES)
def test_fargate_refuses_nothing(part: str) -> None:
    assert template_faults(TEMPLATES / f"{part}.yaml") == []


@pytest.mark.parametrize("part", TEMPLATE_NAMES)
def test_the_template_is_small_enough_to_be_sent(part: str) -> None:
    """A longer one would have to go by a bucket. The service says so only when it is deployed."""
    assert (TEMPLATES / f"{part}.yaml").stat().st_size < TEMPLATE_BYTES


def test_the_code_of_the_watcher_fits_into_a_parameter() -> None:
    assert len((TEMPLATES / "expiry.py").read_text("utf-8")) <= 4096


def test_all_parts_are_checked_before_anything_is_made() -> None:
    assert TEMPLATE_NAMES == readiness.TEMPLATES
    assert {path.stem for path in TEMPLATES.glob("*.yaml")} == set(TEMPLATE_NAMES)
    readiness.check_templates(ROOT)


def test_images_are_scanned_and_their_tags_stay() -> None:
    """moto's CloudFormation leaves the scan out."""
    text = (TEMPLATES / "base.yaml").read_text("utf-8")
    made = re.findall(r"Type: AWS::ECR::Repository\n.*?(?=\n  \w+:\n)", text, re.DOTALL)
    assert len(made) == 2
    for one in made:
        assert "ImageTagMutability: IMMUTABLE" in one
        assert "ImageScanningConfiguration: {ScanOnPush: true}" in one
    assert '"countNumber": 1}' in next(one for one in made if "farmhand-worker-baked" in one)


def test_the_prices_count_what_the_templates_make() -> None:
    def count(part: str, kind: str, after: str = "") -> int:
        return len(re.findall(rf"Type: {kind}\b{after}", (TEMPLATES / f"{part}.yaml").read_text("utf-8")))

    assert count("base", "AWS::SecretsManager::Secret") == prices.SECRETS
    assert count("watch", "AWS::CloudWatch::Alarm") == prices.ALARMS
    assert (ROOT / "aws" / "host.yaml").read_text().count("      MetricName: ") == prices.HOST_METRICS
    assert count("network", "AWS::CloudWatch::Alarm") == prices.NETWORK_ALARMS
    assert count("network", "AWS::EC2::VPCEndpoint", "\n    Condition: Private") == prices.ENDPOINTS
    assert sum(count(part, "AWS::KMS::Key") for part in PARTS) == 1
