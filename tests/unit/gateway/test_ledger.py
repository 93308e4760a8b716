"""gateway.db: what is in it, what is not, how long, and that a kill does not harm it."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.core.task import Usage
from farmhand.gateway import ledger as ledgers
from farmhand.gateway.ledger import DecisionRecord, GatewayLedger, TurnCharge, new_id, read, recent
from farmhand.gateway.policy import Rule, decide
from tests.unit.gateway.turns import facts, local

RULES = (Rule(classes=("chat",), order=("local",)),)


def record(name: str = "", at: float | None = None, **more: Any) -> DecisionRecord:
    states = (local(), local("other", context=9))
    made = decide(facts(**more), states, RULES, "local:other", name or new_id())
    return DecisionRecord(
        at=time.time() if at is None else at, decision=made, states=states, rules=RULES, last="local:other"
    )


def charge(**more: Any) -> TurnCharge:
    given: dict[str, Any] = {
        "decision": "fh-1",
        "created_at": time.time(),
        "model": "qwen",
        "work_class": "chat",
        "residency": "local",
        "backend": "local:qwen",
    }
    return TurnCharge(**(given | more))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "gateway.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[GatewayLedger]:
    made = GatewayLedger(path)
    yield made
    made.close()


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def test_a_decision_is_kept_with_all_that_it_was_made_of(ledger: GatewayLedger, path: Path) -> None:
    first, second = record("fh-00aa112233", hosted_tools=("web_search",)), record("fh-00bb112233")
    ledger.decided(first)
    ledger.decided(second).result(60)
    assert read(path, "fh-00aa112233") == first
    assert read(path, "00bb") == read(path) == second
    assert read(path, "fh-00") is None  # it could be either
    assert read(path, "fh-01") is None
    assert read(path, "%") is None
    assert recent(path, 5) == [second, first]


def test_the_files_are_the_owners_alone(ledger: GatewayLedger, path: Path) -> None:
    ledger.decided(record()).result(60)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()} == {0o600}


def test_a_charge_has_what_a_merge_of_ledgers_needs(ledger: GatewayLedger, path: Path) -> None:
    usage = Usage(input_tokens=5, output_tokens=7, cache_read_input_tokens=9)
    ledger.charged(charge(usage=usage, labels={"project": "p", "client": "pi"}, seconds=1.5, pico=0))
    ledger.charged(charge(status=502, outcome="failed", terms="estimated")).result(60)
    query = "SELECT charge_id, input_tokens, output_tokens, cache_read_input_tokens, labels, pico, outcome FROM charge"
    assert rows(path, query) == [
        (1, 5, 7, 9, '{"client":"pi","project":"p"}', 0, "done"),
        (2, 0, 0, 0, "", None, "failed"),
    ]
    ((uuid,),) = rows(path, "SELECT value FROM meta WHERE name = 'id'")
    assert len(uuid) == 32


def test_the_decisions_are_a_ring(ledger: GatewayLedger, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST", 10)
    for number in range(30):
        ledger.decided(record(f"fh-{number:010x}"))
    ledger.flush()
    assert [found.decision.id for found in recent(path, 99)] == [f"fh-{number:010x}" for number in range(29, 19, -1)]


def test_what_is_too_old_goes_and_charges_stay_longer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "_TRIM_S", 0.0)
    ledger, now, day = GatewayLedger(path), time.time(), 86_400
    for age in (29, 31):
        ledger.decided(record(f"fh-{age}", now - age * day))
    for age in (399, 401):
        ledger.charged(charge(decision=f"fh-{age}", created_at=now - age * day))
    ledger.close()
    assert rows(path, "SELECT id FROM decision") == [("fh-29",)]
    assert rows(path, "SELECT decision FROM charge") == [("fh-399",)]


def test_a_row_that_cannot_be_written_does_not_take_others_along(
    ledger: GatewayLedger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_COLLECT_S", 1.0)  # so that they are one batch
    good, bad, more = (ledger.charged(charge(pico=number)) for number in (1, 2**70, 2))
    assert [one.result(60) for one in (good, more)] == [None, None]
    with pytest.raises(OverflowError):
        bad.result(60)
    assert ledger.lost == 1
    assert rows(path, "SELECT pico FROM charge") == [(1,), (2,)]


def test_a_disk_that_is_too_slow_loses_decisions_and_counts_them(
    ledger: GatewayLedger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_WAITING", 3)
    monkeypatch.setattr(ledgers, "_BATCH", 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # the writer waits
    for _ in range(20):
        ledger.decided(record())
    kept = ledger.charged(charge())
    other.execute("ROLLBACK")
    other.close()
    kept.result(60)
    assert ledger.lost >= 16
    assert len(recent(path, 99)) == 20 - ledger.lost


@pytest.mark.parametrize("content", [b"no database " * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_ledger(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(NotConfigured, match=r"cannot be used: .*move it away"):
        GatewayLedger(path)
    with pytest.raises(NotConfigured, match="cannot be read"):
        read(path)
    assert path.read_bytes() == content


def test_a_ledger_of_a_later_version_is_left_alone(path: Path) -> None:
    GatewayLedger(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 3")
    db.close()
    with pytest.raises(NotConfigured, match="has version 3, this farmhand knows 1"):
        GatewayLedger(path)


def test_what_is_paid_for_is_written_before_and_after(path: Path) -> None:
    ledger = GatewayLedger(path)
    now = time.time()
    paid = charge(residency="metered", outcome="open", held=50, created_at=now)
    ledger.begun(paid).result(60)
    assert ledger.spent(now - 1, now + 1) == 50
    assert ledgers.charged_after(path, 0, 9) == []
    ledger.held(paid.decision, 80).result(60)
    assert ledger.spent(now - 1, now + 1) == 80
    ledger.close()
    again = GatewayLedger(path)
    ((number, lost),) = ledgers.charged_after(path, 0, 9)
    assert (number, lost.outcome, lost.pico, lost.held) == (1, "lost", None, 80)
    again.settled(charge(residency="metered", pico=7, created_at=now)).result(60)
    assert again.spent(now - 1, now + 1) == 7
    again.settled(charge(residency="metered", pico=9, created_at=now)).result(60)
    assert again.spent(now - 1, now + 1) == 7
    assert again.spent(now + 1, now + 9) == 0
    again.close()


def test_no_ledger_is_said(path: Path) -> None:
    with pytest.raises(NotConfigured, match="there is no ledger"):
        read(path)


_WRITER = """
import sys
from pathlib import Path
from farmhand.gateway.ledger import GatewayLedger
from tests.unit.gateway.test_ledger import charge, record
ledger = GatewayLedger(Path(sys.argv[1]))
number = 0
while True:
    for _ in range(7):
        ledger.decided(record())
    ledger.charged(charge(pico=number)).result()
    print(number, flush=True)
    number += 1
"""


def test_a_kill_loses_no_charge_that_was_waited_for_and_the_file_stays_whole(path: Path) -> None:
    root = Path(__file__).parents[3]
    environ = os.environ | {"PYTHONPATH": f"{root}:{root / 'src'}"}
    said = -1
    for _ in range(3):
        begun = said
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=root, env=environ
        ) as child:
            assert child.stdout is not None
            said = int(child.stdout.readline()) + begun + 1
            for _ in range(3):
                said = int(child.stdout.readline()) + begun + 1
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().splitlines()
            said += len(rest)
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
        ((number,),) = rows(path, "SELECT count(*) FROM charge")
        assert said + 1 <= number <= said + 2  # the one more that was written and not yet said
        said = number - 1
    assert recent(path, 99)
