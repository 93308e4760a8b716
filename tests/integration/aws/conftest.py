"""The double of AWS, without containers; an account in it with Farmhand's secret, bucket, key and table."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest

from tests.support.fakeaws import FakeAws
from tests.support.fakeaws.fixtures import aws, aws_login, aws_process
from tests.support.fakeaws.scene import Scene
from tests.unit.aws.conftest import ENVIRONMENT, REGION, make_stack

__all__ = ["aws", "aws_login", "aws_process"]


@pytest.fixture
def scene(aws: FakeAws) -> Scene:
    return Scene(aws)


@pytest.fixture
def station(aws_login: FakeAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's home; this process and all that it starts are logged in to an account of their own."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("AWS_PROFILE", "CLAUDE_CONFIG_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("FARMHAND_AWS_ENVIRONMENT", ENVIRONMENT)
    monkeypatch.setenv("HOME", str(home))
    boto3.setup_default_session(region_name=REGION)
    make_stack()
    return home
