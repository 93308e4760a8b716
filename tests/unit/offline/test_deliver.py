"""How often a task is sent that its hosts do not survive. tests/integration/dispatch has real hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from farmhand.cli.carry import Spooling
from farmhand.core.errors import FarmUnreachable, WireError
from farmhand.core.settings import Settings
from farmhand.offline import deliver
from farmhand.offline.spool import DELIVERIES, Spool, open_spool
from farmhand.wire.client import Client

TASK = {"id": "p", "prompt": "poison"}


class Fragile:
    """A host that is gone as soon as it gets a task, and comes back without it."""

    def __init__(self, refusal: WireError | None = None) -> None:
        self.sent: list[str] = []
        self.refusal = refusal or WireError("unreachable", "the connection was cut", "", status=0)

    def connect(self) -> None:
        """It answers."""

    def task(self, task_id: str) -> dict[str, Any]:
        raise WireError("no_such_task", f"no task {task_id}", "", status=404)

    def submit(self, tasks: list[dict[str, Any]], _key: str) -> list[dict[str, Any]]:
        self.sent += [task["id"] for task in tasks]
        raise self.refusal


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def visit(host: Fragile, name: str, spool: Spool) -> WireError | None:
    """Visit the host and return why that was cut short."""
    try:
        deliver.Visit(cast(Client, host), name, spool, "sk-ant-test-deliver-00000000").make()
    except WireError as problem:
        return problem
    return None


@pytest.mark.parametrize("lost", [False, True], ids=["queued at first", "lost by its own call"])
def test_a_task_that_takes_its_hosts_down_is_sent_so_often_and_then_kept_aside_as_failed(
    spool: Spool, lost: bool
) -> None:
    first, second = Fragile(), Fragile()
    spool.add(TASK, sent="farm1" if lost else "")
    for n in range(10):
        # Each time by another process, which knows what is on the disk only.
        for name, host in (("farm1", first), ("farm2", second)):
            problem = visit(host, name, Spool(spool.directory))
            assert n < DELIVERIES or problem is None
    assert first.sent == ["p"] * (DELIVERIES - lost)
    assert second.sent == []
    kept = spool.kept("p")
    assert kept is not None
    assert (kept.result["state"], kept.result["error"]["code"]) == ("failed", "agent_crashed")
    assert f"sent {DELIVERIES} times" in kept.result["error"]["message"]
    assert "\n" not in kept.result["error"]["message"]
    assert spool.waiting() == []


def test_what_a_host_refuses_for_the_moment_counts_for_nothing(spool: Spool) -> None:
    busy = Fragile(WireError("draining", "the host is being emptied", "", status=503))
    spool.add(TASK)
    for _ in range(10):
        visit(busy, "farm1", spool)
    assert busy.sent == ["p"] * 10
    [entry] = spool.waiting()
    assert (entry.sent, entry.deliveries) == ("", 0)


def test_a_call_of_its_own_does_not_send_it_again_either(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    conf = Settings(config_file=str(tmp_path / "config.toml"))
    open_spool(conf).add(TASK, sent="farm1")
    for _ in range(DELIVERIES - 1):
        Spooling(TASK, conf).sending("farm1")
    with pytest.raises(FarmUnreachable, match=f"was sent {DELIVERIES} times") as refused:
        Spooling(TASK, conf).sending("farm1")
    assert "farmhand flush p" in refused.value.hint


def test_a_file_of_before_counts_as_sent_once(spool: Spool) -> None:
    spool.add(TASK, sent="farm1")
    [entry] = spool.waiting()
    entry.path.write_text(entry.path.read_text().replace(', "deliveries": 1', ""))
    [found] = spool.waiting()
    assert (found.sent, found.deliveries) == ("farm1", 1)
