"""The function on AWS that tells before credentials end, with a clock that the test owns."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import boto3
import pytest
from moto.cloudwatch.models import cloudwatch_backends

from tests.unit.aws.conftest import ENVIRONMENT, vault
from tests.unit.aws.test_vault import key

ROOT = Path(__file__).resolve().parents[3]
DAY = 86400.0
NOW = 1_900_000_000.0


class Watcher:
    """The handler as AWS calls it, its topic with a queue, and the time."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.now = NOW
        self.topic = boto3.client("sns").create_topic(Name="try")["TopicArn"]
        self.queue = boto3.client("sqs").create_queue(QueueName="try")["QueueUrl"]
        arn = "arn:aws:sqs:us-east-1:123456789012:try"
        boto3.client("sns").subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn)

    def run(self) -> dict[str, int]:
        answer: dict[str, int] = self.module.handler({}, None, clock=lambda: self.now)
        return answer

    def told(self) -> list[str]:
        found, client = [], boto3.client("sqs")
        while messages := client.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(json.loads(message["Body"])["Message"])
                client.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found


@pytest.fixture
def watcher(account: Path, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    spec = importlib.util.spec_from_file_location("watcher", ROOT / "aws" / "expiry.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = Watcher(module)
    monkeypatch.setenv("TABLE", f"farmhand-{ENVIRONMENT}")
    monkeypatch.setenv("TOPIC", found.topic)
    monkeypatch.setenv("ENVIRONMENT", ENVIRONMENT)
    return found


def row(kind: str, **fields: dict[str, str]) -> None:
    item = {"pk": {"S": f"credential#{ENVIRONMENT}#{kind}"}, "fingerprint": {"S": "0" * 12}, "place": {"S": "image:x"}}
    boto3.client("dynamodb").put_item(TableName=f"farmhand-{ENVIRONMENT}", Item=item | fields)


def metric(name: str) -> list[float]:
    """All values that were published for the environment."""
    [found] = cloudwatch_backends.values()
    every = [one for one in found["us-east-1"].metric_data if one.name == name]
    assert all([(d.name, d.value) for d in one.dimensions] == [("Environment", ENVIRONMENT)] for one in every)
    return [float(one.value) for one in every]


def test_each_step_once_in_a_hundred_runs(watcher: Watcher) -> None:
    row("key", expires_at={"N": f"{NOW + 40 * DAY:.0f}"})
    told: list[float] = []
    for run in range(100):
        watcher.now = NOW + run * 0.45 * DAY
        told += [run * 0.45] * watcher.run()["told"]
    assert told == [next(x for x in (r * 0.45 for r in range(100)) if x >= 40 - step) for step in (30, 14, 7, 3, 1, 0)]
    messages = watcher.told()
    assert len(messages) == 6
    assert sum("ended on" in message for message in messages) == 1
    assert all("farmhand cloud credential put" in message for message in messages)


def test_the_mail_names_the_command_of_its_kind(watcher: Watcher) -> None:
    row("git", expires_at={"N": f"{NOW + DAY:.0f}"})
    watcher.now = NOW
    watcher.run()
    assert "farmhand cloud credential put --kind git" in "".join(watcher.told())


def test_a_put_begins_anew(watcher: Watcher) -> None:
    watcher.now = 1_800_000_000.0
    vault().put(key(ends=watcher.now + 2 * DAY))
    assert [watcher.run()["told"] for _ in range(3)] == [1, 0, 0]
    vault().put(key("sk-ant-test-another-0000000000001", watcher.now + 2.5 * DAY))
    assert [watcher.run()["told"] for _ in range(3)] == [1, 0, 0]
    assert min(metric("CredentialDaysLeft")) == pytest.approx(2, abs=0.1)


def test_a_refused_one_is_told_once_beside_its_end(watcher: Watcher) -> None:
    row("key", expires_at={"N": f"{NOW + 2 * DAY:.0f}"}, refused={"S": "2026-11-29"})
    assert [watcher.run()["told"] for _ in range(3)] == [2, 0, 0]
    assert sum("was refused by the API" in message for message in watcher.told()) == 1


def test_of_a_login_only_the_end_is_news(watcher: Watcher) -> None:
    row("login", expires_at={"N": f"{NOW + 3600:.0f}"})
    assert watcher.run()["told"] == 0
    watcher.now += 3601
    assert [watcher.run()["told"] for _ in range(3)] == [1, 0, 0]
    assert min(metric("CredentialDaysLeft")) == watcher.module.NEVER, "hours are no reason for the alarm"


def test_the_earlier_of_table_and_tag_counts(watcher: Watcher) -> None:
    watcher.now = 1_800_000_000.0
    vault().put(key(ends=watcher.now + 100 * DAY))
    assert watcher.run()["told"] == 0
    boto3.client("secretsmanager").tag_resource(
        SecretId="farmhand/try/key", Tags=[{"Key": "farmhand:expires-at", "Value": "2027-01-17T00:00:00Z"}]
    )
    assert watcher.run()["told"] == 1


def test_bad_rows_are_skipped_and_counted(watcher: Watcher) -> None:
    row("key", expires_at={"N": f"{NOW + 2 * DAY:.0f}"})
    row("git", expires_at={"S": "tomorrow"})
    row("setup-token", place={"S": "secretsmanager:gone"})
    row("x", place={"N": "1"})
    assert watcher.run() == {"told": 1, "bad": 3}
    assert metric("CredentialRowsBad") == [3.0]


def test_another_environment_is_left_alone(watcher: Watcher) -> None:
    boto3.client("dynamodb").put_item(
        TableName=f"farmhand-{ENVIRONMENT}",
        Item={"pk": {"S": "credential#tryout#key"}, "expires_at": {"N": "1"}, "place": {"S": "image:x"}},
    )
    assert watcher.run() == {"told": 0, "bad": 0}


def test_what_sns_did_not_take_is_told_by_the_next_run(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    row("key", expires_at={"N": f"{NOW + 20 * DAY:.0f}"})
    assert watcher.run()["told"] == 1
    watcher.now += 10 * DAY
    monkeypatch.setenv("TOPIC", "arn:aws:sns:us-east-1:123456789012:gone")
    for _ in range(2):
        with pytest.raises(Exception, match=r"does not exist|NotFound"):
            watcher.run()
    monkeypatch.setenv("TOPIC", watcher.topic)
    assert [watcher.run()["told"] for _ in range(2)] == [1, 0]


def test_two_at_once_tell_it_once(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    row("key", expires_at={"N": f"{NOW + 2 * DAY:.0f}"})
    rows = list(watcher.module.rows(boto3.client("dynamodb"), f"credential#{ENVIRONMENT}#"))
    monkeypatch.setattr(watcher.module, "rows", lambda *_: rows)  # both have read before either has written
    assert [watcher.run()["told"] for _ in range(2)] == [1, 0]


def test_it_fits_into_a_template_and_needs_nothing_but_boto3() -> None:
    text = (ROOT / "aws" / "expiry.py").read_text()
    assert len(text.encode()) <= 4096
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported <= {"os", "time", "datetime", "boto3"}
    assert "get_secret_value" not in text
