"""The canary on AWS: while tasks run in containers and afterwards the key is where it has to be, and nowhere else.

It has to be in the secret, and so in the environment that the agent container starts with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.aws_site import AwsSite
from tests.support.pair import bash
from tests.support.sweep import CanarySweep, Shown, holding
from tests.unit.code.test_repository import small


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsSite]:
    with AwsSite(tmp_path_factory.mktemp("canary"), at_once=2) as made:
        yield made


def logs(site: AwsSite) -> dict[str, Any]:
    """Every line in CloudWatch, by its stream."""
    client = site.aws.client("logs")
    groups = [one["logGroupName"] for one in client.describe_log_groups()["logGroups"]]
    streams = [
        (group, one["logStreamName"])
        for group in groups
        for one in client.describe_log_streams(logGroupName=group)["logStreams"]
    ]
    return {
        f"log {stream}": client.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
        for group, stream in streams
    }


def described(site: AwsSite) -> dict[str, Any]:
    """What the services tell of everything that was made."""
    batch, ecs, names = site.aws.client("batch"), site.aws.client("ecs"), site.names
    parents = [
        job["jobId"]
        for queue in (names.queue(spot=True), names.queue(spot=False))
        for job in batch.list_jobs(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": ["farmhand-*"]}])[
            "jobSummaryList"
        ]
    ]
    children = [f"{parent}:{number}" for parent in parents for number in range(2)]
    definitions = ecs.list_task_definitions()["taskDefinitionArns"]
    tasks = ecs.list_tasks(cluster=names.base, desiredStatus="STOPPED")["taskArns"]
    stacks = site.aws.client("cloudformation").describe_stacks()["Stacks"]
    return {
        "jobs": batch.describe_jobs(jobs=[*parents, *children])["jobs"],
        "job definitions": batch.describe_job_definitions()["jobDefinitions"],
        "tasks": ecs.describe_tasks(cluster=names.base, tasks=tasks, include=["TAGS"])["tasks"],
        **{one: ecs.describe_task_definition(taskDefinition=one)["taskDefinition"] for one in definitions},
        **{f"stack {one['StackName']}": one for one in stacks},
        "items": site.aws.client("dynamodb").scan(TableName=names.base)["Items"],
        "secrets": site.aws.client("secretsmanager").list_secrets()["SecretList"],
        "alarms": site.aws.client("cloudwatch").describe_alarms(),
    }


def test_the_key_is_in_the_agents_first_environment_and_nowhere_else(site: AwsSite, tmp_path: Path) -> None:
    key = site.api_process.key
    origin = small(tmp_path / "origin")
    # The tool says what it can see, so that a key there would be in the result as well.
    look = "sleep 2; env; cat /proc/*/environ /proc/*/cmdline; echo two >> f"
    look += "; mkdir -p .farmhand/out; env > .farmhand/out/e"
    site.api.rule("look around", bash(f"{look} 2>&1; true"), {"text": "{tool_result}"})
    rows = [{"id": f"t{n}", "prompt": "look around", "tools": ["Bash"]} for n in range(3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "t3", "prompt": "hi"}]))
    out = tmp_path / "out"
    out.mkdir()
    batch = ["batch", str(tmp_path / "in.jsonl"), "--out", str(out / "out.jsonl"), "--place", "aws-batch"]
    with CanarySweep(key, f"farmhand.fakeaws=fakeaws-{site.aws.url.rpartition(':')[2]}") as sweep:
        said = [
            site.farmhand(*batch, "--shard", "2", "--max-usd", "1"),
            site.farmhand("code", str(origin), "look around", "--place", "fargate", "--out", str(out / "code")),
        ]
    assert [done.returncode for done in said] == [0, 0]
    # It is where it has to be, so the sweep can see it; the program itself blots it out as it starts.
    inspected, first = Shown("agent", "inspect", ""), Shown("agent", "environ", "docker-init")
    assert sweep.shown - {Shown("agent", "environ", "farmhand.cloud.entry")} == {inspected, first}
    looked = {(container, program) for container, program, _ in sweep.looked}
    assert {("agent", "farmhand.cloud.entry"), ("agent", "farmhand.cloud.agent"), ("worker", "docker-init")} <= looked
    assert {uid for container, _, uid in sweep.looked if container == "agent"} >= {900}
    assert any(uid >= 20_000 for container, _, uid in sweep.looked if container == "worker")
    things = described(site) | logs(site) | site.objects("")
    things |= {f"said {n}": done.stdout + done.stderr for n, done in enumerate(said)}
    for directory in (out, Path(site.environ["HOME"])):
        things |= {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert len(things["jobs"]) == 3
    assert len(things["tasks"]) == 1
    assert sum(name.startswith("log ") for name in things) >= 6
    assert any(name.endswith("changes.patch") for name in things)
    assert holding(key, things) == []
    # What is stored is the key, and not another text that is looked for in vain.
    assert site.aws.client("secretsmanager").get_secret_value(SecretId=site.names.secret("key"))["SecretString"] == key
