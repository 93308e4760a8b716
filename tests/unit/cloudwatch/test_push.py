"""Pushes to a CloudWatch that refuses, breaks off or dies, from an agent that restarts or answers nonsense."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from email.message import Message
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from farmhand.cloudwatch.figures import Labels
from farmhand.cloudwatch.push import Pusher
from farmhand.cloudwatch.reading import PAGE
from farmhand.core.errors import WireError
from farmhand.core.pushed import read_note
from farmhand.wire.client import Client
from farmhand.wire.schema import WIRE, WIRE_HEADER

NOW = 1_764_000_030.0
DENIED = ClientError({"Error": {"Code": "AccessDenied", "Message": "not authorized"}}, "PutMetricData")
BROKEN = ReadTimeoutError(endpoint_url="https://monitoring")


class Answer:
    """The answer to `GET /metrics`."""

    status, will_close = 200, False

    def __init__(self, text: str) -> None:
        self.text = text
        self.headers = Message()
        self.headers[WIRE_HEADER] = str(WIRE)

    def read_all(self, _most: int) -> bytes:
        return self.text.encode()


class FakeAgent:
    """What `Client` says of an agent with these charges."""

    def __init__(self) -> None:
        self.ledger, self.started, self.errors = "one", 5.0, 0
        self.lines: list[bytes] = []
        self.keys: list[dict[str, str]] = []
        self.text: str | None = None
        self.gone = False
        self.transport = type("T", (), {"name": "agent.sock"})

    def charge(self, usd: str = "0.01", at: float = NOW, number: int = 0) -> None:
        number = number or len(self.lines) + 1
        line = {"charge_id": number, "created_at": at, "cost_usd": float(usd), "requests": 1, "model": "haiku"}
        self.lines.append(json.dumps(line).encode())

    def status(self) -> dict[str, Any]:
        if self.gone:
            raise WireError("agent_down", "the agent does not answer", "see systemctl")
        return {"ledger": {"id": self.ledger}, "queued": 2, "awaiting_key": 1, "keys": self.keys}

    def request(self, _method: str, path: str) -> Answer:
        assert path == "/metrics"
        text = f"farmhand_start_time_seconds {self.started}\n# TYPE farmhand_api_errors_total counter\n"
        text += f'farmhand_api_errors_total{{kind="rate_limit_error"}} {self.errors}\n'
        return Answer(text if self.text is None else self.text)

    def charges(self, after: int, limit: int) -> list[bytes]:
        return [line for line in self.lines if json.loads(line)["charge_id"] > after][:limit]


class FakeCloudWatch:
    """Adds up what it takes. `faults`: errors that the next calls end with, before (or, if `taken`, after) it took."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.calls = 0
        self.faults: list[BaseException | None] = []
        self.taken = False

    def put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> None:  # noqa: N803  (boto3's names)
        assert Namespace == "Farmhand"
        assert 0 < len(MetricData) <= 1000
        self.calls += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault is None or self.taken:
            for one in MetricData:
                assert one["Value"] >= 0
                self.sums[one["MetricName"] if len(one["Dimensions"]) < 3 else "Code"] += round(one["Value"] * 10**6)
        if fault is not None:
            raise fault


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def cloudwatch() -> FakeCloudWatch:
    return FakeCloudWatch()


@pytest.fixture
def push(agent: FakeAgent, cloudwatch: FakeCloudWatch, tmp_path: Path) -> Any:
    """Push once, as a process of its own would. Return the problem."""

    def once(at: float = NOW) -> str:
        client = cast(Client, agent)
        return Pusher(client, lambda: cloudwatch, Labels("prod", "farm1"), tmp_path).run(at)[-1]

    return once


def test_what_was_there_before_is_not_pushed_and_all_after_it_once(
    agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any
) -> None:
    agent.charge("5")
    agent.errors = 3
    assert push() == ""
    assert (cloudwatch.sums["CostUsd"], cloudwatch.sums["Errors"]) == (0, 0)
    for _ in range(2 * PAGE + 3):
        agent.charge("0.01")
    agent.errors = 4
    assert [push(), push(), push()] == ["", "", ""]
    assert cloudwatch.sums["CostUsd"] == (2 * PAGE + 3) * 10_000
    assert cloudwatch.sums["Requests"] == (2 * PAGE + 3) * 10**6
    assert cloudwatch.sums["Errors"] == cloudwatch.sums["Code"] == 10**6
    assert cloudwatch.sums["Queued"] == 4 * 3 * 10**6


@pytest.mark.parametrize("error", [DENIED, NoCredentialsError(), EndpointConnectionError(endpoint_url="x")])
def test_what_cloudwatch_refused_comes_with_the_next_push(
    agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any, tmp_path: Path, error: Exception
) -> None:
    assert push() == ""
    agent.charge()
    agent.errors = 2
    cloudwatch.faults = [error, error]
    assert "CloudWatch: " in push(NOW + 60)
    assert push(NOW + 120) != ""
    note = read_note(str(tmp_path / "note.json"))
    assert note.at == NOW
    assert note.problem.startswith("CloudWatch: ")
    assert push(NOW + 180) == ""
    assert (cloudwatch.sums["CostUsd"], cloudwatch.sums["Errors"]) == (10_000, 2 * 10**6)
    assert read_note(str(tmp_path / "note.json")).at == NOW + 180


@pytest.mark.parametrize("error", [BROKEN, KeyboardInterrupt()])
@pytest.mark.parametrize("taken", [True, False])
def test_what_may_have_arrived_is_not_sent_again(
    agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any, tmp_path: Path, error: BaseException, taken: bool
) -> None:
    """KeyboardInterrupt stands for a crash in the middle of the call."""
    assert push() == ""
    agent.charge("0.25")
    cloudwatch.faults, cloudwatch.taken = [error], taken
    if error is BROKEN:
        lines = Pusher(cast(Client, agent), lambda: cloudwatch, Labels("p", "h"), tmp_path).run(NOW)
        assert "US$ 0.25 of the ledger may be missing there" in lines[0]
    else:
        with pytest.raises(KeyboardInterrupt):
            push()
    agent.charge("0.5")
    lines = Pusher(cast(Client, agent), lambda: cloudwatch, Labels("p", "h"), tmp_path).run(NOW)
    assert lines[-1] == ""
    assert len(lines) == (1 if error is BROKEN else 2)
    assert cloudwatch.sums["CostUsd"] == (750_000 if taken else 500_000)
    assert push() == ""
    assert cloudwatch.sums["CostUsd"] == (750_000 if taken else 500_000)


def test_a_call_of_many_fails_and_only_the_rest_comes_again(
    agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any
) -> None:
    assert push() == ""
    for _ in range(3 * PAGE):
        agent.charge()
    before = cloudwatch.calls
    cloudwatch.faults = [cast(Exception, None), DENIED]
    assert "AccessDenied" in push()
    assert cloudwatch.calls - before == 2
    assert push() == ""
    assert cloudwatch.sums["CostUsd"] == 3 * PAGE * 10_000


def test_a_push_ends_and_the_next_one_goes_on(
    agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farmhand.cloudwatch.push.MOST_CALLS", 3)
    assert push() == ""
    for _ in range(PAGE * 3 + 1):
        agent.charge()
    before = cloudwatch.calls
    assert push() == ""
    assert cloudwatch.calls - before == 3
    assert push() == ""
    assert cloudwatch.sums["CostUsd"] == (PAGE * 3 + 1) * 10_000


def test_another_ledger_begins_again(agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any) -> None:
    agent.charge()
    agent.charge()
    assert push() == ""
    agent.ledger, agent.lines, agent.started, agent.errors = "two", [], 9.0, 1
    agent.charge("0.03")
    assert push() == ""
    assert (cloudwatch.sums["CostUsd"], cloudwatch.sums["Errors"]) == (30_000, 10**6)


def test_charges_that_are_too_old_hold_up_nothing(
    agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any, tmp_path: Path
) -> None:
    assert push() == ""
    for _ in range(2 * PAGE):
        agent.charge("1", at=NOW - 15 * 86_400)
    agent.charge("0.01")
    cloudwatch.faults = [None, DENIED]
    pusher = Pusher(cast(Client, agent), lambda: cloudwatch, Labels("prod", "farm1"), tmp_path)
    missing, problem = pusher.run(NOW)
    assert missing == "US$ 600.00 of the ledger are of more than two weeks ago: CloudWatch does not take them"
    assert "AccessDenied" in problem
    assert push() == "", "the rest comes, and nothing is said of it twice"
    assert cloudwatch.sums["CostUsd"] == 10_000


def test_a_file_that_cannot_be_understood_counts_nothing_twice(
    agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any, tmp_path: Path
) -> None:
    agent.charge()
    assert push() == ""
    (tmp_path / "marks.json").write_text("{")
    assert push() == ""
    assert cloudwatch.sums["CostUsd"] == 0


def test_what_cannot_be_written_down_is_not_sent(
    agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert push() == ""
    agent.charge()
    before = cloudwatch.calls

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("farmhand.cloudwatch.marks.replace", full)
        assert "No space left on device" in push()
    assert cloudwatch.calls == before
    assert push() == ""
    assert cloudwatch.sums["CostUsd"] == 10_000


ODD_METRICS = ["", "{", "farmhand_start_time_seconds nan\n", "farmhand_start_time_seconds 1\n" * 2, 'a{b="c} 1\n']
ODD_CHARGES = [
    b"{",
    b"[]",
    b'{"charge_id": 0, "created_at": 1}',
    b'{"charge_id": 2, "created_at": -1}',
    b'{"charge_id": 2, "created_at": 1, "cost_usd": -1}',
    b'{"charge_id": 2, "created_at": 1, "cost_usd": 1e99}',
    b'{"charge_id": 2, "created_at": 1, "requests": -1}',
    b'{"charge_id": 1, "created_at": 1}',
    b'{"charge_id": 99999999999999999999, "created_at": 1}',
]


@pytest.mark.parametrize("text", ODD_METRICS)
def test_odd_metrics_are_one_line_and_push_nothing(
    agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any, text: str
) -> None:
    agent.text = text
    assert "its answer is not one of the wire" in push()
    assert cloudwatch.calls == 0


@pytest.mark.parametrize("line", ODD_CHARGES)
def test_odd_charges_are_one_line_and_push_nothing(
    agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any, line: bytes
) -> None:
    agent.charge()
    assert push() == ""
    before = cloudwatch.calls
    agent.charges = lambda after, limit: [line]  # type: ignore[method-assign]
    problem = push()
    assert "its answer is not one of the wire" in problem
    assert "\n" not in problem
    assert cloudwatch.calls == before


def test_an_agent_that_is_down_is_said(agent: FakeAgent, push: Any, tmp_path: Path) -> None:
    agent.gone = True
    assert "the agent does not answer" in push()
    note = read_note(str(tmp_path / "note.json"))
    assert (note.at, note.problem[:27]) == (None, "the agent does not answer (")


def test_a_refused_key_and_the_queue_are_told(agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any) -> None:
    agent.keys = [{"fingerprint": "a", "state": "held"}, {"fingerprint": "b", "state": "refused"}]
    assert push() == ""
    assert (cloudwatch.sums["Refused"], cloudwatch.sums["Queued"]) == (10**6, 3 * 10**6)


def test_money_is_exact(agent: FakeAgent, cloudwatch: FakeCloudWatch, push: Any) -> None:
    assert push() == ""
    for usd in ("0.1", "0.2", "0.000001"):
        agent.charge(usd)
    assert push() == ""
    assert Decimal(cloudwatch.sums["CostUsd"]) / 10**6 == Decimal("0.300001")
