"""The real agent's figures in the double of CloudWatch: sums, kills, alarms, and what the note and the agent say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from farmhand.core.pushed import trouble
from tests.support.agent import Agent
from tests.support.alarm_states import evaluate, sum_of
from tests.support.cloud import deploy, deploy_host, outputs
from tests.support.fakeaws import FakeAws
from tests.support.forked import ForkedAgent
from tests.support.messages_api import Fault, MessagesApi

HERE = {"Environment": "prod", "Host": "farm1"}


class PushUnit:
    """`python -m farmhand.cloudwatch`, as the timer runs it."""

    def __init__(self, agent: Agent, aws: FakeAws, directory: Path) -> None:
        self.agent, self.aws, self.directory = agent, aws, directory
        directory.mkdir()

    async def start(self, **environ: str) -> asyncio.subprocess.Process:
        argv = [sys.executable, "-m", "farmhand.cloudwatch", "--socket", str(self.agent.socket)]
        argv += ["--environment", "prod", "--host", "farm1", "--region", "us-east-1"]
        argv += ["--state-dir", str(self.directory), "--endpoint-url", environ.pop("url", self.aws.url)]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(*argv, env=os.environ | self.aws.environ() | environ, stderr=pipe)

    async def run(self, **environ: str) -> tuple[int, str]:
        """Its exit status and what it said."""
        process = await self.start(**environ)
        _, said = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()


@pytest.fixture
async def agent(tmp_path: Path, api: MessagesApi) -> AsyncIterator[Agent]:
    note = str(tmp_path / "push" / "note.json")
    daemon = ForkedAgent(tmp_path, api.url, idle_s=5.0, drain_s=5.0, metrics_note=note)
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest.fixture
def unit(agent: Agent, aws: FakeAws, tmp_path: Path) -> PushUnit:
    return PushUnit(agent, aws, tmp_path / "push")


async def spent(agent: Agent) -> tuple[Decimal, int]:
    """What the ledger says: US$ and requests."""
    charges = await agent.get("/v1/charges?limit=10000")
    return sum((Decimal(str(one["cost_usd"])) for one in charges), Decimal(0)), sum(one["requests"] for one in charges)


def pushed(aws: FakeAws) -> tuple[Decimal, int]:
    """What CloudWatch has: US$ and requests."""
    usd = Decimal(str(sum_of(aws, "CostUsd", **HERE))).quantize(Decimal("1e-12"))
    return usd, int(sum_of(aws, "Requests", **HERE))


async def test_sums_are_those_of_the_ledger_over_kills_of_both(
    agent: Agent, api: MessagesApi, aws: FakeAws, unit: PushUnit
) -> None:
    assert await unit.run() == (0, "")
    for number in range(4):
        assert (await agent.run(id=f"t{number}", prompt="hello"))["state"] == "succeeded"
        if number % 2:
            assert await unit.run() == (0, "")
    # The agent dies after it has counted, and before anybody has read that.
    assert (await agent.run(id="last", prompt="hello"))["state"] == "succeeded"
    await agent.stop(signal.SIGKILL)
    await agent.start()
    api.fault(Fault(kind="status", status=429, match="busy", count=2), Fault(kind="status", status=529, match="busy"))
    await agent.run(id="busy", prompt="busy", timeout_s=2)
    # A push that is killed before its call has pushed nothing, and the next one does it.
    process = await unit.start()
    process.kill()
    await process.wait()
    assert await unit.run() == (0, "")
    assert await unit.run() == (0, "")
    assert pushed(aws) == await spent(agent)
    assert (await spent(agent))[1] >= 5
    text = await agent.get("/metrics")
    lines = (line.split() for line in text.splitlines())
    errors = {line[0]: float(line[1]) for line in lines if line[0].startswith("farmhand_api_errors_total")}
    limited = errors['farmhand_api_errors_total{kind="rate_limit_error"}']
    assert limited >= 1
    assert sum_of(aws, "Errors", **HERE, Code="rate_limit_error") == limited
    assert sum_of(aws, "Errors", **HERE) == sum(errors.values())


async def test_an_outage_of_cloudwatch_delays_and_doubles_nothing(agent: Agent, aws: FakeAws, unit: PushUnit) -> None:
    assert await unit.run() == (0, "")
    await agent.run(id="one", prompt="hello")
    status, said = await unit.run(url="http://127.0.0.1:9")
    assert (status, said.count("\n")) == (1, 1)
    assert "CloudWatch: EndpointConnectionError" in said
    assert (await agent.run(id="two", prompt="hello"))["state"] == "succeeded"
    status, said = await unit.run(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert (status, said.count("\n")) == (1, 1)
    assert "NoCredentialsError" in said
    assert await unit.run() == (0, "")
    assert pushed(aws) == await spent(agent)


async def test_the_agent_says_how_the_push_goes(agent: Agent, unit: PushUnit) -> None:
    status = await agent.get("/v1/status")
    assert status["cloudwatch"] == {"at": None, "problem": "nothing was pushed yet"}
    assert trouble(status) == "no metrics have reached CloudWatch yet: nothing was pushed yet"
    assert await unit.run() == (0, "")
    status = await agent.get("/v1/status")
    assert abs(status["cloudwatch"]["at"] - status["time"]) < 60
    assert trouble(status) == ""
    assert (await unit.run(url="http://127.0.0.1:9"))[0] == 1
    status = await agent.get("/v1/status")
    assert trouble(status) == ""  # it is tried again every minute
    said = trouble(status | {"time": status["time"] + 1000})
    assert said.startswith("no metrics have reached CloudWatch for 17 minutes: CloudWatch: EndpointConnectionError")


async def test_alarms_go_off_for_this_host_and_tell_the_topic(
    agent: Agent, api: MessagesApi, aws: FakeAws, unit: PushUnit
) -> None:
    deploy(aws, parts=("data", "base", "watch"), FarmHosts="farm1,farm2")
    for host in ("farm1", "farm2"):
        deploy_host(aws, host, CostPerHourUsd="0.000001", RequestsPerHour="1", RateLimitedPercent="10")
    deploy(aws, "dev", ("data", "base"))
    deploy_host(aws, "farm1", "dev", CostPerHourUsd="0.000001", RequestsPerHour="1")
    sqs = aws.client("sqs")
    queue = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws.client("sns").subscribe(TopicArn=outputs(aws)["TopicArn"], Protocol="sqs", Endpoint=arn)
    assert await unit.run() == (0, "")
    now = datetime.now(UTC) + timedelta(minutes=1)
    quiet = evaluate(aws, now)
    silent = {name for name, state in quiet.items() if state == "ALARM" and name.endswith("/silent")}
    assert silent == {"farmhand-prod/farm2/silent", "farmhand-dev/farm1/silent"}
    assert not any(state == "ALARM" for name, state in quiet.items() if name.startswith("farmhand-prod/farm1/"))

    api.fault(Fault(kind="status", status=429, match="limited", count=1))
    await asyncio.gather(*(agent.run(id=f"t{n}", prompt="hello") for n in range(20)))
    assert await unit.run() == (0, "")
    first = evaluate(aws, now + timedelta(seconds=30))
    api.fault(Fault(kind="status", status=429, match="limited", count=4))
    await agent.run(id="limited", prompt="limited", timeout_s=60)
    assert await unit.run() == (0, "")
    second = evaluate(aws, now + timedelta(seconds=59))
    for name in ("cost-hour", "requests"):
        assert first[f"farmhand-prod/farm1/{name}"] == "ALARM"
        assert first[f"farmhand-prod/farm2/{name}"] == first[f"farmhand-dev/farm1/{name}"] == "OK"
    assert first["farmhand-prod/farm1/cost-day"] == "OK"
    assert first["farmhand-prod/farm1/rate-limit"] == "OK"
    assert second["farmhand-prod/farm1/rate-limit"] == "ALARM"
    assert second["farmhand-prod/farm1/errors"] == "OK"
    later = evaluate(aws, now + timedelta(minutes=30))
    assert later["farmhand-prod/farm1/silent"] == "ALARM"
    assert later["farmhand-prod/farm1/rate-limit"] == "OK"

    told = []
    while got := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        told += [json.loads(json.loads(one["Body"])["Message"]) for one in got]
        for one in got:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
    heard = {one["AlarmName"] for one in told if one["NewStateValue"] == "ALARM"}
    assert heard >= {f"farmhand-prod/farm1/{name}" for name in ("cost-hour", "requests", "rate-limit", "silent")}
    assert not any(name.startswith("farmhand-dev/") for name in heard)


async def test_the_dashboard_has_the_hosts(aws: FakeAws) -> None:
    for name, hosts in (("prod", "farm1,farm2"), ("dev", "")):
        deploy(aws, name, ("data", "base", "watch"), FarmHosts=hosts)
        client = aws.client("cloudwatch")
        # moto makes up the end of its name.
        [dashboard] = client.list_dashboards(DashboardNamePrefix=f"farmhand-{name}")["DashboardEntries"]
        body = client.get_dashboard(DashboardName=dashboard["DashboardName"])["DashboardBody"]
        widgets = [one["properties"] for one in json.loads(body)["widgets"]]
        assert len(widgets) == (9 if hosts else 4)
        if hosts:
            assert {"markdown": "Farm hosts with alarms: farm1, farm2"} in widgets
            searches = [one["metrics"][0][0]["expression"] for one in widgets if "Farm hosts: " in one.get("title", "")]
            for metric, expression in zip(("CostUsd", "Requests", "Errors", "Queued"), searches, strict=True):
                assert f'\'{{Farmhand,Environment,Host}} MetricName="{metric}" Environment="prod"\'' in expression
