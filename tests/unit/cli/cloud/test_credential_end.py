"""When a credential ends: that stays known wherever it is put, and the command that puts it again is the right one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import boto3
import pytest

from farmhand.cli.checks.station import aws_credential
from tests.unit.aws.conftest import conf
from tests.unit.cli.cloud.test_credential import PUT, PUT_AGAIN, Call, call, full

__all__ = ["call", "full"]


@pytest.mark.parametrize("lost", ["the secret", "the table's row", "the place"])
def test_the_end_of_a_credential_stays_with_it(full: Path, call: Call, lost: str) -> None:
    """Where it is put again, or elsewhere, it ended at an unknown time: nobody was told before its end."""
    git = f"{PUT} --kind git --source file:repos.env#GIT_TOKEN"
    soon = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 5 * 86400))
    assert call(f"{git} --expires {soon}")[0] == 0
    if lost == "the secret":
        boto3.client("secretsmanager").delete_secret(SecretId="farmhand/try/git", RecoveryWindowInDays=7)
    elif lost == "the table's row":
        item = {"pk": {"S": "credential#try#git"}}
        boto3.client("dynamodb").delete_item(TableName="farmhand-try", Key=item)
    if lost == "the place":
        assert call(f"{git} --place s3")[0] == 0
    else:
        assert "git: put again" in call("cloud credential check --upload")[1]
    rows = json.loads(call("cloud credential status --json")[1])["credentials"]
    assert [row["expires_at"] for row in rows if row["kind"] == "git"] == [f"{soon}T00:00:00Z"]
    assert call("cloud credential check")[0] == 3


@pytest.mark.parametrize(
    ("words", "kind"),
    [("", "key"), ("--place s3", "key"), ("--kind git --place s3 --client-side", "git")],
)
def test_what_ends_is_put_again_by_the_command_that_is_named(full: Path, call: Call, words: str, kind: str) -> None:
    """For each it was `farmhand cloud credential put`: the key, into Secrets Manager."""
    soon = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 10.5 * 86400))
    source = "--source file:repos.env#GIT_TOKEN" if kind == "git" else ""
    assert call(f"{PUT} {words} {source} --expires {soon}")[0] == 0
    _, _, err = call("cloud credential remove --previous")
    command = f"{PUT_AGAIN} {words}".rstrip()
    assert f"the {kind} on AWS ends in 10 days, on {soon} ({command})\n" in err
    assert aws_credential(conf()).fix.startswith(f"{command}; ")
