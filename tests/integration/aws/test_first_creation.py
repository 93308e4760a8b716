"""The stack of the data cannot be made: nothing of it stays, and `farmhand cloud down` takes its empty shell away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from farmhand.aws.names import Names
from tests.support import command
from tests.support.cloud import TEMPLATES, stacks
from tests.support.fakeaws.client import ACCOUNT, FakeAws

LOADED = ("farmhand.cli.cloud", "tests.support.aws_loaded")
NAMES = Names("prod", ACCOUNT, "us-east-1")
#: A queue without a place, that is made last.
BROKEN = """
  Broken:
    Type: AWS::Batch::JobQueue
    DependsOn: [TrailBucketPolicy, BucketPolicy, Table, KeyAlias]
    Properties:
      JobQueueName: x
      Priority: 1
      State: ENABLED
      ComputeEnvironmentOrder: [{ComputeEnvironment: no, Order: 1}]
"""


def test_a_first_creation_that_failed_leaves_nothing_and_can_be_repeated(aws: FakeAws, tmp_path: Path) -> None:
    """aws/serverless-application-model#1819: what was retained stood in the way of the next creation."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "FARMHAND_"))}
    environ |= aws.environ() | {"HOME": str(tmp_path)}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def cloud(*words: str) -> subprocess.CompletedProcess[str]:
        return command.run("farmhand", ["cloud", *words], environ, TEMPLATES.parent, preload=LOADED)

    client, text = aws.client("cloudformation"), (TEMPLATES / "data.yaml").read_text("utf-8")
    head, mark, rest = text.partition("Resources:\n")
    client.create_stack(
        StackName=NAMES.data,
        TemplateBody=head + mark + BROKEN.lstrip("\n") + rest,
        Parameters=[{"ParameterKey": "Environment", "ParameterValue": "prod"}],
    )
    assert stacks(aws) == {NAMES.data: "ROLLBACK_COMPLETE"}
    assert aws.client("s3").list_buckets()["Buckets"] == []
    assert aws.client("dynamodb").list_tables()["TableNames"] == []
    done = cloud("up", "--yes")
    assert done.returncode == 3, done.stderr
    assert "ROLLBACK_COMPLETE: Broken (AWS::Batch::JobQueue)" in done.stderr
    assert "farmhand cloud down removes it; then farmhand cloud up" in done.stderr
    assert cloud("down", "--network-only", "--yes").returncode == 3
    done = cloud("down", "--yes")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"removed {NAMES.data}"), done.stderr
    assert stacks(aws) == {}
