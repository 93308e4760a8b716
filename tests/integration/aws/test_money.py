"""The money of what ran on AWS in `farmhand cost`: that of the ledgers and of the containers, to the last digit."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest

from farmhand.aws.environment.spent import SpentRecords
from farmhand.aws.environment.used import UsedEnvironment, mark, used
from farmhand.aws.places.bucket import BatchBucket
from farmhand.aws.prices import cloud_prices
from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.money import pico
from farmhand.core.settings import Settings
from farmhand.core.shard import LedgerPart
from farmhand.cost import on_aws
from farmhand.cost.merged import merged
from farmhand.cost.summary import Figures, document
from tests.integration.aws.batches import Site, moto, prompts, site, wait
from tests.integration.aws.test_run_task import Single, ends
from tests.support import aws_place

__all__ = ["moto", "site"]
#: By hand: 0.5 vCPU and 1 GB, 2 vCPU and 8 GB, US$ a second; Spot is 0.3 of it.
BATCH_S = (Decimal("0.5") * Decimal("0.04048") + Decimal("0.004445")) * Decimal("0.3") / 3600
CODE_S = (2 * Decimal("0.04048") + 8 * Decimal("0.004445")) * Decimal("0.3") / 3600


class Desk:
    """The workstation: a batch's site, single tasks, and the store that both are merged into."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.site, self.single = site, Single()
        self.single.aws.batch = site.batch
        self.conf = Settings(
            cost_store=str(directory / "cost.db"),
            config_file=str(directory / "config.toml"),
            docker_name="farmhand-no-such-pair",
            connect_timeout_s=1,
        )
        self.errors: dict[str, str] = {}

    def cost(self, by: str = "host", *, ask: bool = True) -> Figures:
        """`farmhand cost`."""
        with merged(self.conf, None, print, ask=ask) as ledgers:
            found = ledgers.figures(by=by)
            self.errors = ledgers.basis.errors
            return found

    def ledgers(self) -> int:
        """The pico-dollars of all charges in the bucket."""
        lines = [line for body in self.site.objects("/ledger/").values() for line in body.splitlines()]
        rows = [json.loads(line, parse_float=Decimal) for line in lines]
        return sum(pico(Decimal(row["cost_usd"])) for row in rows if "charge_id" in row)

    def billed(self) -> int:
        """The seconds of all attempts of the batch, as they are billed."""
        attempts = [one for job in self.site.batch.jobs.values() for rows in job.attempts.values() for one in rows]
        return sum(max(60, math.ceil((one["stoppedAt"] - one["startedAt"]) / 1000)) for one in attempts)

    def charge(self, name: str, *costs: str) -> None:
        """A single task's container leaves its ledger."""
        about = {"model": "claude-haiku-5-5", "engine": "cli", "created_at": 1e9}
        rows = [{**about, "charge_id": n, "cost_usd": float(cost)} for n, cost in enumerate(costs, 1)]
        done = {**about, "finish_seq": 1, "state": "succeeded", "finished_at": 1e9, "cost_usd": None}
        head = msgspec.to_builtins(LedgerPart(ledger=name, charges=len(rows), finished=1))
        body = "".join(json.dumps(row) + "\n" for row in [head, *rows, done])
        self.single.put(self.single.keys.ledgers() + f"0/00000/{name}-0001.jsonl", body.encode())


@pytest.fixture
def desk(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(site, tmp_path)
    monkeypatch.setattr(on_aws, "login_of", lambda _conf, _one: made.single.aws)
    return made


def test_a_batch_with_an_interruption_and_a_task_that_was_killed_are_all_there_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, single = desk.site, desk.single
    site.child.beyond = 7_000_001
    site.child.ends = lambda index, attempt: (
        (None, "Your Spot Task was interrupted.", 4) if (index, attempt) == (1, 1) else None
    )
    assert site.command(prompts(30), shard=10) is None
    killed = ends("Your Spot Task was interrupted.", None, "SpotInterruption")
    times = single.leaves()
    single.ecs.plays = [lambda: {**times(), **killed(), "capacityProviderName": "FARGATE_SPOT"}, single.leaves()]
    site_result = single.keys.output("result.json")
    first = single.ecs.plays[0]

    def lost() -> dict[str, Any]:
        told = first()
        single.s3.delete_object(Bucket=single.aws.names.bucket, Key=site_result)
        return told

    single.ecs.plays[0] = lost
    result = single.task(spot=True).run()
    desk.charge("1", "0.25")
    desk.charge("2", "0.000000000001", "0.125")
    found = desk.cost()
    assert desk.errors == {}
    assert found.whole.spent_pico == desk.ledgers()
    assert found.whole.tasks == 32
    fargate = found.compute
    assert fargate is not None
    assert (fargate.runs, fargate.seconds, fargate.unknown_runs) == (6, desk.billed() + 600, 0)
    by_hand = BATCH_S * desk.billed() + CODE_S * 600
    assert Decimal(fargate.total_pico) == pytest.approx(by_hand * 10**12, abs=6)
    assert fargate.with_model_pico == fargate.total_pico + found.whole.spent_pico
    assert Decimal(result["place"]["usd"]) == pytest.approx(CODE_S * 600, abs=Decimal("1e-11"))
    assert [(part.key, part.compute_pico) for part in found.groups] == [("aws-test", fargate.total_pico)]
    by_batch = {part.key: part.compute_pico or 0 for part in desk.cost("batch").groups}
    assert sum(by_batch.values()) == fargate.total_pico
    assert by_batch[""] == pytest.approx(int(CODE_S * 600 * 10**12), abs=2)
    assert desk.cost("model").groups[0].compute_pico is None
    # Merging again, and without asking, changes nothing, and reads no object twice.
    shown = document(found)
    reads: list[str] = []
    get = BatchBucket.get

    def noted(self: BatchBucket, key: str) -> bytes | None:
        reads.append(key)
        return get(self, key)

    monkeypatch.setattr(BatchBucket, "get", noted)
    again = document(desk.cost())
    for one in (shown, again):
        one.pop("generated_at")
        [host] = one["hosts"]
        assert (host.pop("merged_at") is not None, host["missing"]) == (True, 0)
    assert again == shown
    assert desk.cost(ask=False).compute == fargate
    assert reads == []


def test_what_still_runs_is_counted_and_what_nobody_knows_is_said(desk: Desk) -> None:
    site = desk.site
    site.child.works = False
    assert site.command(prompts(20), shard=10, until=lambda place: place.submitted) is None
    assert desk.cost().compute is None
    site.child.works = True
    wait(site.batch.ended)
    # Nobody has collected the batch. AWS still knows its containers.
    found = desk.cost()
    assert found.compute is not None
    assert (found.compute.seconds, found.compute.unknown_runs) == (desk.billed(), 0)
    assert found.whole.spent_pico == desk.ledgers()
    assert site.command() is None
    assert desk.cost().compute == found.compute
    # And what AWS has forgotten, and nobody has noted, is no zero.
    [account] = site.objects("account.json")
    other = account.replace(account.split("/")[2], "lost")
    for key, body in site.objects("/in/0/").items():
        if key != account:
            single_key = key.replace(account.split("/")[2], "lost")
            desk.single.put(single_key, body.replace(b'"job-1"', b'"job-9"'))
    assert other.startswith("test/batches/lost/")
    found = desk.cost()
    assert found.compute is not None
    assert found.compute.unknown_runs == 2


def test_a_task_whose_command_was_killed_is_counted_by_ecs_or_by_its_own_clock(desk: Desk) -> None:
    single = desk.single
    dead = single.task()
    dead.sleep = lambda _s: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        dead.run()
    single.ecs.described = 1
    told = single.leaves()
    arn = next(iter(single.ecs.tokens.values()))
    single.ecs.plays = [lambda: {**told(), "taskArn": arn}]
    found = desk.cost().compute
    assert found is not None
    assert (found.runs, found.seconds) == (1, 300)
    # An hour later ECS has forgotten it. What it has told once is not forgotten here.
    single.ecs.described, single.ecs.plays = 1, [lambda: {"taskArn": "arn:another"}]
    assert desk.cost().compute == found
    # Without that, the result has the container's own clock: a second, so a minute is billed.
    desk.conf = desk.conf._replace(cost_store=f"{desk.conf.cost_store}.other")
    single.ecs.described, single.ecs.plays = 1, [lambda: {"taskArn": "arn:another"}]
    found = desk.cost().compute
    assert found is not None
    assert (found.runs, found.seconds, found.unknown_runs) == (1, 60, 0)
    # What a container claims that cannot be is said, and is no money.
    key = single.keys.output("result.json")
    for claimed in (b'"stopped_at":9e10', b'"stopped_at":1e300', b'"stopped_at":0.5'):
        body = single.get(key)
        single.put(key, body.replace(b'"stopped_at":2.0', claimed))
        single.ecs.described, single.ecs.plays = 1, [lambda: {"taskArn": "arn:another"}]
        found = desk.cost().compute
        assert found is not None
        assert (found.total_pico, found.unknown_runs) == (0, 1)
        assert key in desk.errors["aws-test"]
        single.put(key, body)


def test_a_part_that_is_damaged_is_one_line_and_all_else_counts(desk: Desk) -> None:
    assert desk.site.command(prompts(20), shard=10) is None
    whole = desk.ledgers()
    key = "test/batches/x/ledger/0/00000/1-0000.jsonl"
    desk.single.put(key, b'{"ledger":"u","charges":2,"finished":0}\n{"charge_id":1}\n')
    found = desk.cost()
    assert found.whole.spent_pico == whole
    [(host, line)] = desk.errors.items()
    assert host == "aws-test"
    assert key in line
    assert "1 rows, not 2 + 0" in line
    desk.single.put(key, b'{"ledger":"u","charges":1,"finished":0}\n{"charge_id":1,"cost_usd":-1}\n')
    desk.cost()
    assert key in desk.errors["aws-test"]


def test_a_container_cannot_name_the_ledger_of_a_farm_host(desk: Desk) -> None:
    mark(desk.single.aws, aws_place.CONF)
    with merged(desk.conf, None, print, ask=False) as ledgers:
        number, _, _ = ledgers.store.ledger("u1", "farm1")
    desk.single.put("test/batches/x/ledger/0/00000/1-0000.jsonl", b'{"ledger":"u1","charges":0,"finished":0}\n')
    desk.cost()
    with merged(desk.conf, None, print, ask=False) as ledgers:
        rows = ledgers.store.rows("SELECT host FROM ledger WHERE id = ?", (number,))
    assert rows == [("farm1",)]


def test_aws_that_is_down_is_one_line_and_keeps_its_figures(desk: Desk) -> None:
    assert desk.site.command(prompts(20), shard=10) is None
    before = desk.cost()
    desk.single.aws.broken = FarmhandError("asking AWS: AWS did not answer")
    with merged(desk.conf, None, print, ask=True) as ledgers:
        after = ledgers.figures()
        assert ledgers.status == 1
        assert ledgers.basis.errors == {"aws-test": "asking AWS: AWS did not answer"}
    assert (after.compute, after.whole.spent_pico) == (before.compute, before.whole.spent_pico)


def test_an_environment_is_asked_as_it_was_used(site: Site, tmp_path: Path) -> None:
    assert used() == []
    with (
        pytest.raises(NotConfigured, match="no farm host is known"),
        merged(Settings(config_file=str(tmp_path / "c"), docker_name="farmhand-no-such-pair"), None, print, ask=False),
    ):
        pass
    assert site.command(prompts(2)) is None
    assert used() == [UsedEnvironment("test", aws_place.REGION, "123456789012", "")]
    aws = on_aws.login_of(Settings(connect_timeout_s=3), used()[0])
    assert aws.names.bucket == "farmhand-test-123456789012-us-east-1"
    with pytest.raises(NotConfigured, match="work was sent to AWS account 999999999999"):
        on_aws.login_of(Settings(), used()[0]._replace(account="999999999999"))


def test_without_the_extra_it_says_what_it_could_not_ask(site: Site, tmp_path: Path, monkeypatch: Any) -> None:
    assert site.command(prompts(2)) is None
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    conf = Settings(cost_store=str(tmp_path / "c.db"), config_file=str(tmp_path / "c"), docker_name="farmhand-none")
    with merged(conf, None, print, ask=True) as ledgers:
        assert ledgers.figures().whole.tasks == 0
        assert ledgers.status == 3
        [line] = ledgers.basis.errors.values()
    assert "pip install boto3 aws-encryption-sdk" in line


def test_records_name_what_they_cannot_read(site: Site) -> None:
    assert site.command(prompts(2)) is None
    aws = aws_place.FakeAws(site.batch)
    [account] = site.objects("account.json")
    bad = b'{"stretches":[{"began_at":1,"ended_at":2,"runs":1,"seconds":1,"pico":-5}]}'
    boto3.client("s3", region_name=aws_place.REGION).put_object(Bucket=aws.names.bucket, Key=account, Body=bad)
    records = SpentRecords(aws, cloud_prices(aws_place.REGION))
    assert [*records.sums()] == []
    [error] = records.damaged
    assert (error.code, account in error.message) == ("bad_answer", True)


@pytest.mark.parametrize("name", ["out/7", "ledger/x", "-1", "1_0", "0", "9" * 30])
def test_what_is_no_try_costs_nothing(desk: Desk, name: str) -> None:
    """A task that leaves its sandbox has the task role, which may write any key with /out/ or /ledger/ in it."""
    mark(desk.single.aws, desk.conf)
    times = {"began_at": 1e9, "ended_at": 1e9 + 60}
    forged = {"arn": "a", "spot": False, "stretches": [{**times, "runs": 1, "seconds": 60, "pico": 5}]}
    desk.single.put("test/batches/x/in/order.json", b"{}")
    desk.single.put(f"test/batches/x/in/runs/{name}.json", json.dumps(forged).encode())
    found = desk.cost()
    assert (found.compute, desk.errors) == (None, {})
    desk.single.put("test/batches/x/in/runs/1.json", json.dumps(forged).encode())
    found = desk.cost()
    assert found.compute is not None
    assert found.compute.total_pico == 5
