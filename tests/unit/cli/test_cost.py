"""`farmhand cost` from its flags to its output, over agents in memory."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from farmhand.aws.environment.used import UsedEnvironment
from farmhand.cli import cost
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, UsageError, WireError
from farmhand.core.settings import Settings
from farmhand.cost import merged, on_aws
from farmhand.cost.breakdown import label_text
from farmhand.cost.rows import FinishedTask, LedgerCharge
from farmhand.cost.store import ContainerRuns, CostStore
from tests.unit.cost.ledgers import DAY, NOW, charge
from tests.unit.cost.test_merge import FakeAgent
from tests.unit.cost.test_sessions import line, write
from tests.unit.cost.test_summary import scalars

AMOUNT = re.compile(r"\d+\.\d{2,12}")


class DownAgent(FakeAgent):
    """One that does not answer."""

    def connect(self) -> None:
        raise WireError("unreachable", f"{self.uuid}: no answer within 10 s")


class Farm:
    """Agents by host, and the command over them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.agents: dict[str, FakeAgent] = {}
        self.down: set[str] = set()
        self.config = directory / "config.toml"
        self.config.write_text(f'cost_store = "{directory}/cost.db"\nbox_usd_month = "24"\n')

    def add(self, name: str, agent: FakeAgent) -> None:
        self.agents[name] = agent
        entries = {host: {"address": host} for host in self.agents}
        (self.directory / "hosts.json").write_text(json.dumps({"hosts": entries}))

    def client(self, transport: Any) -> FakeAgent:
        return DownAgent(transport.name) if transport.name in self.down else self.agents[transport.name]

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(
            cost.command, ["--config", str(self.config), *arguments], standalone_mode=False, env={"COLUMNS": "80"}
        )

    def json(self, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run("--json", *arguments).stdout)
        return answer


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Farm:
    made = Farm(tmp_path)
    rows = [charge(no, model="claude-haiku-5-5", batch=f"batch-{no % 30}", at=NOW - no * 3600) for no in range(1, 100)]
    rows += [charge(100, model="claude-next"), charge(101, economy=True, engine="economy", labels={"team": "a\x1b"})]
    tasks = [
        FinishedTask(
            number=no,
            state="failed" if no == 1 else "succeeded",
            model="claude-haiku-5-5",
            engine="api",
            batch=f"batch-{no % 30}",
            created_at=NOW,
            finished_at=NOW - no * 3600,
            uncertain=int(no == 1),
        )
        for no in range(1, 100)
    ]
    made.add("farm1", FakeAgent("u1", rows, tasks))
    made.add("farm2", FakeAgent("u2", [charge(1, model="claude-opus-5-5", at=NOW - DAY)]))
    made.agents["farm1"].budget = {"limit_usd": 5, "spent_usd": 0.25, "reserved_usd": 0.125, "day": "2026-11-24"}

    monkeypatch.setattr(merged, "Client", made.client)
    monkeypatch.setattr("farmhand.cost.merged.time.time", lambda: NOW)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))
    return made


def test_the_terminal_shows_the_numbers_of_the_document_in_80_columns(farm: Farm) -> None:
    write(farm.directory / "claude" / "projects" / "p" / "s.jsonl", line())
    result = farm.run("--reprice")
    assert result.return_value == 0
    known = {value for _, value in scalars(farm.json("--reprice")) if isinstance(value, str)}
    amounts = set(AMOUNT.findall(result.stdout))
    assert len(amounts) > 20
    loose = {"100.0", *(value for value in known if AMOUNT.search(value))}
    assert all(any(amount in value for value in loose) for amount in amounts), amounts
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\x1b" not in result.stdout
    for words in (
        "claude-opus-5-5",
        "1 request to claude-next: no price is known",
        "1 request may have been charged",
        "Target 10-20x:",
        "tasks a month pay for it",
        "drawn on the plan's own limits",
        "Interactive sessions (estimate)",
        "left of 5.00 on 2026-11-24; 0.125 reserved",
    ):
        assert words in " ".join(result.stdout.split()), words


def test_by_alone_is_the_table_and_what_it_does_not_hold(farm: Farm) -> None:
    shown = farm.run("--by", "day").stdout
    lines = shown.strip().splitlines()
    assert lines[0].split() == ["day", "US$", "tasks", "requests", "tokens", "in", "out"]
    groups = farm.json("--by", "day")["groups"]
    assert [line.split()[0] for line in lines[1 : len(groups) + 2]] == [*(group["key"] for group in groups), "all"]
    total = farm.json("--by", "day")["whole"]["spent_usd"]
    assert lines[len(groups) + 1].split()[1] == f"{total}+?"
    assert "1 request to claude-next: no price is known" in " ".join(shown.split())
    for title in ("Saved against", "Spent since", "The box", "The same tokens"):
        assert title not in shown
    assert "Saved against" in (full := farm.run("--by", "day", "--full").stdout)
    assert lines[1] in full


def test_the_first_lines_are_what_it_cost_and_would_have_cost(farm: Farm) -> None:
    shown = farm.run().stdout
    first, second = shown.splitlines()[:2]
    assert re.fullmatch(r"US\$ 0\.\d{2,4} for 99 tasks", first)
    assert second.startswith("Plain claude -p on claude-sonnet-5-5 would have cost US$ ")
    words = " ".join(shown.split())
    assert re.search(r"would have cost US\$ [\d.]+, [\d.]+ times as much\. ", words)
    assert "Without a known price, and in no sum: 1 request." in words


def test_savings_are_positive_and_add_up(farm: Farm) -> None:
    saved = farm.json()["savings"]
    lines = farm.run().stdout.partition("Saved against")[2].splitlines()
    rows = {line[:15].strip(): line[15:].split() for line in lines[2:] if line[:1].islower()}
    assert rows["cheaper model"][0] == saved["levers"][0]["saving_usd"]
    assert rows["saved"][0] == saved["saving_usd"]
    assert Decimal(saved["levers"][0]["saving_usd"]) > 0
    assert sum(Decimal(lever["saving_usd"]) for lever in saved["levers"]) == Decimal(saved["saving_usd"])


def test_places_are_told_apart(farm: Farm) -> None:
    farm.json()
    with closing(CostStore(farm.directory / "cost.db")) as store:
        number, _, _ = store.ledger("s3://bucket/ledgers/1", "aws-prod")
        store.merge(number, LedgerCharge, [charge(1, batch="nightly"), charge(2)])
        number, _, _ = store.ledger("uuid-of-a-container", "docker")
        store.merge(number, LedgerCharge, [charge(1)])
        number, _, _ = store.ledger("gw", "workstation")
        store.merge(number, LedgerCharge, [charge(1, engine="gateway")])
    shown = farm.json("--by", "place", "--no-merge")
    assert {part["key"]: part["requests"] for part in shown["groups"]} == {
        "farm": 102, "aws-batch": 1, "fargate": 1, "docker": 1, "gateway": 1
    }  # fmt: skip
    # A turn of the gateway is in no comparison, and the first lines say what could be compared.
    assert "of it can be compared: plain claude -p" in shown["headline"]["said"]


def test_amounts_stand_under_one_another(farm: Farm) -> None:
    shown = farm.run("--by", "day").stdout.splitlines()
    dots = {row.index(".") for row in shown if re.match(r"2026-11-\d\d ", row)}
    assert len(dots) == 1


def test_many_groups_end_in_one_line_that_keeps_the_sum(farm: Farm) -> None:
    document = farm.json("--by", "batch")
    assert len(document["groups"]) == 31
    row = next(row for row in farm.run("--by", "batch").stdout.splitlines() if row.startswith("(11 more)"))
    rest = sum(Decimal(part["spent_usd"]) for part in document["groups"][20:])
    assert Decimal(row.split()[2]) == rest


def test_a_store_of_an_older_form_is_said_once_and_merged_again(farm: Farm) -> None:
    with sqlite3.connect(farm.directory / "cost.db") as db:
        db.execute("PRAGMA user_version = 1")
    first, second = farm.run("--json"), farm.run("--json")
    assert f"cost.db was of an older form: it is merged again from the hosts, and {farm.directory}" in first.stderr
    assert first.stderr.count("\n") == 1
    assert (second.stderr, second.stdout) == ("", first.stdout)


def test_csv_has_the_same_amounts(farm: Farm) -> None:
    rows = list(csv.DictReader(io.StringIO(farm.run("--csv", "--by", "host").stdout)))
    groups = farm.json("--by", "host")["groups"]
    assert [row["host"] for row in rows] == ["farm1", "farm2"]
    assert [row["spent_usd"] for row in rows] == [group["spent_usd"] for group in groups]


def test_a_host_that_is_down_is_named_and_its_last_figures_kept(farm: Farm) -> None:
    before = farm.json()
    farm.down.add("farm2")
    farm.agents["farm1"].rows.append(charge(102))
    result = farm.run()
    assert result.return_value == 4
    text = " ".join(result.stdout.split())
    assert "farm2 could not be asked, its figures are of" in text
    assert "farm2: no answer within 10 s" in text
    after = farm.json()
    assert after["whole"]["requests"] == before["whole"]["requests"] + 1
    assert {part["key"] for part in after["groups"]} >= {"claude-opus-5-5"}
    farm.down.add("farm1")
    assert farm.json("--no-merge")["whole"] == after["whole"]


def test_asking_again_changes_nothing(farm: Farm) -> None:
    first, second = farm.json(), farm.json()
    for document in (first, second):
        for host in document["hosts"]:
            assert host.pop("merged_at").endswith("Z")
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("--since", "yesterday"), UsageError, "--since 'yesterday': not a day"),
        (("--since", "2026-13"), UsageError, "not a day"),
        (("--since", "2027-01-01"), UsageError, "not in the past"),
        (("--since", ""), UsageError, "--since ''"),
        (("--by", "colour"), UsageError, "--by 'colour': not something to group by"),
        (("--since", "0d"), UsageError, "not a day"),
        (("--json", "--csv"), UsageError, "choose one"),
        (("--csv", "--compare", "cloud"), UsageError, "has the groups and no comparison"),
        (("--csv", "--console-usd", "2026-10=1"), UsageError, "has the groups and no month by month"),
        (("--csv", "--reprice"), UsageError, "has the groups and no repriced sum"),
        (("--cost-store", "~nobody-of-that-name/x"), NotConfigured, "cannot be opened"),
        (("--baseline-model", "gpt"), UsageError, "no price is known for the baseline model 'gpt'"),
        (("--box-usd-month", "much"), NotConfigured, "box_usd_month: 'much' is not US$ a month"),
        (("--box-usd-month", "farm9=3"), NotConfigured, "no farm host is called 'farm9'"),
        (("--prices-file", "/"), NotConfigured, "the price file / cannot be read"),
        (("--cost-store", "/"), NotConfigured, "the cost store / cannot be opened"),
        (("--admin-key-source", "env:NOT_SET"), NotConfigured, "NOT_SET is not set"),
        (("--admin-key-source", "sk-ant-admin01-pasted"), NotConfigured, "not of a known form"),
    ],
)
def test_bad_input_is_one_line(farm: Farm, arguments: tuple[str, ...], kind: type[FarmhandError], words: str) -> None:
    error = farm.run(*arguments).exception
    assert isinstance(error, kind) or (isinstance(error, WireError) and error.kind is kind)
    assert words in str(error)
    assert "\n" not in str(error)
    assert "pasted" not in str(error)


def test_what_is_asked_for_beside_a_table_or_a_comparison_is_shown(farm: Farm) -> None:
    beside = ("--console-usd", "2026-10=1.25", "--reprice")
    table = farm.run("--by", "host", *beside).stdout
    compared = farm.run("--compare", "cloud", *beside).stdout
    for said in (table, compared):
        assert "2026-10 (typed in)" in said
        assert "the same requests by prices" in said
        assert "Saved against" not in said
    assert "host " in table
    assert "farm1" not in compared
    assert re.search(r"^farm1 ", farm.run("--compare", "cloud", "--by", "host").stdout, re.MULTILINE)


def test_an_error_in_json(farm: Farm) -> None:
    assert json.loads(farm.run("--json", "--by", "x").stdout)["error"]["code"] == "usage"


def test_the_comparison_is_answered_from_the_ledgers_in_80_columns(farm: Farm) -> None:
    result = farm.run("--compare", "cloud")
    assert result.return_value == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    text = " ".join(result.stdout.split())
    for words in (
        "The same work in four ways, in US$ for 1,000 tasks By 99 tasks of",
        "a token of your plan on Fargate saves US$ 50 to 100 a month: unknown. 1 request has no price.",
        "The box (US$ 48.00 a month) costs less than Fargate from",
        "AWS, us-east-1: 2026-06-30",
        "Note: 1 request has no price: in no sum.",
    ):
        assert words in text, words
    shown = farm.json("--compare", "cloud")["comparison"]
    assert [one["verdict"] for one in shown["verdicts"]] == ["unknown", "true", "true", "true"]
    assert "comparison" not in farm.json()


def test_an_aws_that_is_down_is_one_line_like_a_host(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = farm.directory / "state" / "farmhand" / "aws-used"
    marks.mkdir(parents=True)
    there = {"environment": "prod", "region": "us-east-1", "account": "123456789012", "profile": ""}
    (marks / "one.json").write_text(json.dumps(there))
    asked: list[Any] = []

    def down(conf: Settings, one: UsedEnvironment) -> Any:
        asked.append((one, conf.connect_timeout_s))
        raise FarmUnreachable("asking AWS who is logged in: AWS did not answer")

    monkeypatch.setattr(on_aws, "login_of", down)
    result = farm.run("--by", "host", "--connect-timeout", "3")
    assert result.return_value == 4
    text = " ".join(result.stdout.split())
    assert "aws-prod could not be asked, nothing of it is in here: asking AWS who is logged in" in text
    assert asked == [(UsedEnvironment(**there), 3.0)]
    assert farm.run("--no-merge").return_value == 0
    assert len(asked) == 1
    (marks / "one.json").write_text("{}")
    error = farm.run().exception
    assert isinstance(error, NotConfigured)
    assert "one.json cannot be read" in str(error)


def test_fargate_has_a_column_where_it_can_be_told_apart(farm: Farm) -> None:
    farm.json()
    with closing(CostStore(farm.directory / "cost.db")) as store:
        runs = [ContainerRuns(NOW - 60, NOW, 2, 120, 1_500_000_000_001), ContainerRuns(0.0, 0.0, 4, 0, None)]
        store.ran("s3://b/k", "aws-prod", "batch-3", runs, settled=True)
    shown = farm.json("--by", "batch")
    model, fargate = (Decimal(shown[name]["total_usd"]) for name in ("spent", "compute"))
    assert (fargate, shown["compute"]["unknown_runs"]) == (Decimal("1.500000000001"), 4)
    assert Decimal(shown["compute"]["with_model_usd"]) == model + fargate
    assert sum(Decimal(row["compute_usd"]) for row in shown["groups"]) == fargate
    lines = farm.run("--by", "host").stdout.splitlines()
    [head] = [line for line in lines if line.startswith("host")]
    assert "Fargate" in head
    assert any(line.startswith("aws-prod") and "1.500000000001" in line for line in lines)
    assert max(map(len, lines)) <= 80
    text = " ".join(farm.run().stdout.split())
    assert "The time of 4 containers on AWS is not known any more" in text
    assert "Fargate" not in next(line for line in farm.run().stdout.splitlines() if line.startswith("model "))
    rows = list(csv.DictReader(io.StringIO(farm.run("--csv", "--by", "day").stdout)))
    assert sum(Decimal(row["compute_usd"]) for row in rows) == fargate


def test_no_cell_of_the_csv_is_a_formula() -> None:
    formulas = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1", "--", "-"]
    plain = ["a=b", "haiku", "", "2026-11-28", "-0.50", "-12", "0.001", "label -x", "#=1"]
    values = [*formulas, *plain, "\x9b2J\u202e"]
    columns = {"key": "", "spent_usd": ""}
    rows = [{"key": value, "spent_usd": "-1.25"} for value in values]
    text = cost.as_csv_text({"by": "label:x", "whole": columns, "groups": rows})
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[0] == ["label:x", "spent_usd"]
    cells = [row[0] for row in read[1:]]
    assert {row[1] for row in read[1:]} == {"-1.25"}
    assert all(cell.startswith("'") for cell in cells[: len(formulas)])
    assert cells[len(formulas) : -1] == plain
    assert cells[-1] == "\ufffd2J\ufffd"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ('{"run":"1","team":"x"}', "run=1, team=x"),
        ("claude-haiku-5-5", "claude-haiku-5-5"),
        ("{not labels", "{not labels"),
        ("{}", ""),
    ],
)
def test_labels_read_as_people_write_them(key: str, shown: str) -> None:
    assert label_text(key) == shown
