"""`farmhand cloud verify --live` where AWS or the containers do not do as they should; tasks are played by the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.aws.client import Aws
from farmhand.aws.names import Names
from farmhand.aws.places import live_check
from farmhand.aws.places.live_check import ROWS, LiveCheck
from farmhand.core import shard
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.errors import FarmhandError, Refused
from farmhand.core.settings import Settings
from tests.support.cloud import deploy
from tests.support.fakeaws.client import ACCOUNT, FakeAws

NAMES = Names("prod", ACCOUNT, "us-east-1")
REASON = "CannotPullContainerError: pull timed out"
CONF = Settings(aws_environment="prod")


@pytest.fixture
def made(aws_login: FakeAws) -> FakeAws:
    deploy(aws_login)
    secret = NAMES.secret("key")
    aws_login.client("secretsmanager").put_secret_value(SecretId=secret, SecretString="sk-ant-test-live")
    return aws_login


@pytest.fixture
def played(made: FakeAws) -> Iterator[Callable[..., None]]:
    """Play what starts, each once: `task` gets the ARN; a job's first attempt ends with 75, its second with 0."""
    over = threading.Event()

    def play(task: Callable[[str], object]) -> None:
        seen: set[str] = set()
        while not over.wait(0.05):
            for name in set(made.tasks()) - seen:
                seen.add(name)
                if name.startswith("arn:"):
                    task(name)
                else:
                    made.play(name, {"agent": shard.EXIT_LEFT if name.endswith("#1") else shard.EXIT_DONE})

    threads: list[threading.Thread] = []

    def start(task: Callable[[str], object]) -> None:
        threads.append(threading.Thread(target=play, args=(task,), daemon=True))
        threads[0].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()


def check(conf: Settings = CONF, **more: Any) -> LiveCheck:
    return LiveCheck(conf=conf, aws=Aws(conf), say=print, sleep=lambda s: time.sleep(min(s, 0.1)), **more)


def test_what_does_not_start_fails_with_its_reason_and_the_rest_is_not_known(
    made: FakeAws, played: Callable[..., None]
) -> None:
    played(lambda arn: made.play(arn, None, REASON))
    one = check()
    rows = {row.name: row for row in one.run()}
    one.stop()
    assert [*rows] == [*ROWS]
    assert REASON in rows["the start"].seen
    found = {name: row.verdict for name, row in rows.items()}
    jobs = ("ListJobs", "a job is tried again", "exit codes of attempts")
    assert found == dict.fromkeys(ROWS, "not known") | dict.fromkeys(jobs, "passed") | {"the start": "failed"}


def test_a_report_that_is_damaged_is_one_line_and_a_row_of_another_name_is_none(
    made: FakeAws, played: Callable[..., None]
) -> None:
    one = check(id="verify-damaged")
    key = BatchKeys.of("prod", one.id).output("verify.json")
    made.client("s3").put_object(Bucket=NAMES.bucket, Key=key, Body=b'{"rows": [{"name": 5}]}')
    played(lambda arn: made.play(arn, {"agent": 0}))
    with pytest.raises(FarmhandError, match="the report of verify-damaged is damaged"):
        one.run()
    one.stop()


def test_what_runs_too_long_is_ended(
    made: FakeAws, played: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_check, "LIMIT_S", 1.0)
    played(made.play)
    one = check()
    found = {row.name: row for row in one.run()}
    assert (found["the start"].verdict, "not ended within 1 s" in found["the start"].seen) == ("failed", True)
    one.stop()
    made.until(lambda: not any(task["running"] for task in made.tasks().values()))


def test_a_price_above_its_own_limit_is_refused_and_nothing_is_made(made: FakeAws, tmp_path: Path) -> None:
    text = Path(live_check.__file__).parents[1].joinpath("prices.toml").read_text("utf-8")
    dear = tmp_path / "prices.toml"
    dear.write_text(text.replace('fargate_vcpu_hour = "', 'fargate_vcpu_hour = "9'), "utf-8")
    assert live_check.MOST_USD > check().most_usd() > 0
    with pytest.raises(Refused, match=r"its own limit is US\$ 0\.05"):
        check(CONF._replace(aws_prices_file=str(dear))).most_usd()
    assert made.tasks() == {}
