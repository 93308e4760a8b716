"""Which host a call goes to. `Scripted` answers in place of ssh."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, WireError
from farmhand.places import reach as module
from farmhand.places.hosts import Host
from farmhand.places.reach import FAILOVER_S, reach


@dataclass
class Scripted:
    """Stands for farmhand.wire.client.Client: what each host says to a greeting."""

    says: dict[str, WireError | str]
    greeted: list[tuple[str, float]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def client(self, transport: Any) -> Any:
        outer = self

        class Client:
            def __init__(self) -> None:
                self.transport = transport

            def connect(self) -> None:
                outer.greeted.append((transport.name, transport.connect_timeout_s))
                said = outer.says[transport.name]
                if isinstance(said, WireError):
                    raise said

            def status(self) -> dict[str, Any]:
                return {"state": outer.says[transport.name]}

            def close(self) -> None:
                outer.closed.append(transport.name)

        return Client()


def try_hosts(monkeypatch: pytest.MonkeyPatch, **says: WireError | str) -> tuple[Scripted, list[FarmhandError], Any]:
    scripted, skipped = Scripted(says), list[FarmhandError]()
    monkeypatch.setattr(module, "Client", scripted.client)
    hosts = [Host(name=name, address="x") for name in says]
    try:
        answered: Any = reach(hosts, 10.0, skipped.append)[0].name
    except FarmhandError as error:
        answered = error
    return scripted, skipped, answered


DOWN = WireError("unreachable", "no route", "look")


def test_the_first_that_answers_is_taken_and_no_other_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted, skipped, answered = try_hosts(monkeypatch, a="running", b="running")
    assert (answered, skipped, scripted.greeted) == ("a", [], [("a", FAILOVER_S)])


@pytest.mark.parametrize(
    "first", [DOWN, WireError("host_key_changed", "key"), WireError("agent_too_old", "old"), "draining"]
)
def test_one_that_does_not_is_passed_over_quickly(monkeypatch: pytest.MonkeyPatch, first: WireError | str) -> None:
    scripted, skipped, answered = try_hosts(monkeypatch, a=first, b="draining")
    # The last one may be draining: there is nobody else, and it says so itself.
    assert answered == "b"
    assert len(skipped) == 1
    assert scripted.greeted == [("a", FAILOVER_S), ("b", 10.0)]
    assert scripted.closed == ["a"]


def test_all_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    _, skipped, answered = try_hosts(monkeypatch, a=DOWN, b=WireError("agent_down", "b sleeps"))
    assert isinstance(answered, FarmUnreachable)
    assert str(answered) == "no farm host answers: a: no route (look); b sleeps"
    assert len(skipped) == 1
    _, _, alone = try_hosts(monkeypatch, a=DOWN)
    assert str(alone) == "a: no route (look)"


def test_what_is_to_be_set_up_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, answered = try_hosts(monkeypatch, a=WireError("not_configured", "no such file"), b="running")
    assert isinstance(answered, NotConfigured)
