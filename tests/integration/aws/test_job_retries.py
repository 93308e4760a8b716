"""Which ends of an attempt the stack's job definitions try again: five rules, and what no rule fits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from farmhand.aws.names import Names
from farmhand.aws.places.batch_jobs import BatchJobs, PlannedJob
from farmhand.core import shard
from farmhand.core.settings import Settings
from tests.support.aws_place import FakeAws as Cloud
from tests.support.cloud import deploy
from tests.support.fakeaws.client import ACCOUNT, FakeAws

NAMES = Names("prod", ACCOUNT, "us-east-1")
#: What AWS says of a start that failed. Seen: globaldothealth/list#2662, nextflow#5099, amazon-ecs-agent#4825,
#: containers-roadmap#2561; the Batch user guide's own example has the last.
NOT_STARTED = [
    "CannotPullContainerError: pull image manifest has been retried 5 time(s)",
    "ResourceInitializationError: unable to pull secrets or registry auth",
    "Timeout waiting for network interface provisioning to complete.",
    "CannotStartContainerError: a fault of the machine",
    "Task failed to start",
]


@pytest.fixture(scope="module")
def made(aws_process: FakeAws) -> Iterator[FakeAws]:
    aws_process.reset()
    deploy(aws_process)
    secret = NAMES.secret("key")
    aws_process.client("secretsmanager").put_secret_value(SecretId=secret, SecretString="sk-ant-test-retries")
    yield aws_process
    aws_process.reset()


def submitted(made: FakeAws) -> str:
    given = {"jobQueue": NAMES.queue(spot=False), "jobDefinition": NAMES.definition("api")}
    job: str = made.client("batch").submit_job(jobName="retries", **given)["jobId"]
    made.until(lambda: f"{job}#1" in made.tasks())
    return job


def is_tried_again(made: FakeAws, job: str) -> bool:
    """Whether a second attempt begins; it is ended then."""

    def known() -> str:
        status = made.client("batch").describe_jobs(jobs=[job])["jobs"][0]["status"]
        return "again" if f"{job}#2" in made.tasks() else "over" if status in ("SUCCEEDED", "FAILED") else ""

    again = made.until(known) == "again"
    made.client("batch").terminate_job(jobId=job, reason="enough")
    return bool(again)


@pytest.mark.parametrize("vague", [False, True], ids=["plain", "vague"])
@pytest.mark.parametrize("reason", NOT_STARTED)
def test_a_start_that_failed_is_tried_again_whatever_aws_calls_it(made: FakeAws, reason: str, vague: bool) -> None:
    made.options(vague_start=vague)
    try:
        job = submitted(made)
        made.until(lambda: made.play(job, None, reason))
        assert is_tried_again(made, job)
    finally:
        made.options(vague_start=False)


@pytest.mark.parametrize(
    ("code", "again"),
    [
        (shard.EXIT_LEFT, True),
        *((code, False) for code in (shard.EXIT_BUG, shard.EXIT_STOPPED, shard.EXIT_REFUSED, shard.EXIT_CONFIG)),
        *((code, False) for code in (1, 2, 137, 139)),
    ],
)
def test_of_what_a_container_ends_with_only_work_that_is_left_is_tried_again(
    made: FakeAws, code: int, again: bool
) -> None:
    job = submitted(made)
    made.until(lambda: made.play(job))
    made.until(lambda: made.play(job, {"agent": code}))
    assert is_tried_again(made, job) is again


def test_spot_is_tried_again_and_a_job_that_was_ended_is_not(made: FakeAws) -> None:
    job = submitted(made)
    made.until(lambda: made.play(job))
    made.until(lambda: made.tasks()[f"{job}#1"]["running"])
    assert made.interrupt(job)
    assert is_tried_again(made, job)
    job = submitted(made)
    made.client("batch").terminate_job(jobId=job, reason="enough")
    assert not is_tried_again(made, job)


def test_the_reason_of_a_vague_start_is_the_container_s(made: FakeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in made.environ().items():
        monkeypatch.setenv(name, value)
    made.options(vague_start=True)
    try:
        job = submitted(made)
        made.until(lambda: made.play(job, None, NOT_STARTED[0]))
        assert is_tried_again(made, job)
    finally:
        made.options(vague_start=False)
    jobs = BatchJobs(Cloud(made.client("batch"), Settings(aws_environment="prod")), "b")
    found = next(jobs.attempts(PlannedJob("retries", 0, 1, job)))
    assert (found.reason, found.exit_code) == (NOT_STARTED[0], None)
