"""Two farm hosts, one of which answers as no agent does: every verb ends, names it, and shows the other."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from farmhand.cli import app, status_view
from farmhand.cli.say import one_line
from farmhand.core.errors import FarmhandError, WireError
from farmhand.core.settings import Settings
from farmhand.offline.spool import open_spool
from farmhand.places import hosts
from farmhand.places.watch import HostWatch
from farmhand.rotation import fleet
from farmhand.wire import client as wire_client
from farmhand.wire import follow
from tests.support.hostile import EVERYWHERE, HISTORIES, SOMEWHERE, Agent, Hostile, Line
from tests.unit.rotation.doubles import NEW, World

KEY = "sk-ant-test-hostile-0000000000"
HOSTILE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: A verb that has not ended by then hangs.
_HANGS_S = 120.0


@dataclass
class Said:
    """How a verb ended."""

    status: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


class Desk:
    """A workstation with two hosts, `bad` and `good`, in this order."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, answer_s: float, silence_s: float) -> None:
        self.good: Agent = Agent("good")
        self.bad: Agent = Agent("bad")
        self.patience_s = 1.0
        monkeypatch.setenv("HOME", str(directory))
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            monkeypatch.setenv(name, str(directory / name.lower()))
        key = directory / "repos.env"
        key.write_text(f"ANTHROPIC_API_KEY={KEY}\n")
        key.chmod(0o600)
        self.config = directory / "config.toml"
        self.config.write_text(f'key_source = "file:{key}"\nfallback = "none"\n')
        entries = {name: {"address": name} for name in ("bad", "good")}
        (directory / "hosts.json").write_text(json.dumps({"hosts": entries}))
        self.settings = Settings(config_file=str(self.config), hosts_file=str(directory / "hosts.json"))
        monkeypatch.setenv("FARMHAND_HOSTS_FILE", str(directory / "hosts.json"))

        def line(host: hosts.Host, connect_timeout_s: float) -> Line:
            if host.name == "bad":
                return Line(self.bad, min(connect_timeout_s, self.patience_s))
            return Line(self.good, connect_timeout_s)

        monkeypatch.setattr(hosts.Host, "transport", line)
        monkeypatch.setattr(wire_client, "_ANSWER_S", answer_s)
        monkeypatch.setattr(wire_client, "MAX_EVENTS", 5000)
        monkeypatch.setattr(wire_client.Client.__init__, "__kwdefaults__", {"silence_s": silence_s})
        monkeypatch.setattr(
            follow.run_task, "__kwdefaults__", {**(follow.run_task.__kwdefaults__ or {}), "resume_s": 2.0}
        )

    def run(self, *argv: str) -> Said:
        """A verb in this process; an error that is not one of ours fails the test, and so does one that hangs."""
        given = [*argv, "--connect-timeout", "1", "--config", str(self.config)]
        answers: list[Any] = []
        thread = threading.Thread(
            target=lambda: answers.append(CliRunner().invoke(app.farmhand, given, standalone_mode=False)), daemon=True
        )
        thread.start()
        thread.join(_HANGS_S)
        assert answers, f"{argv[0]} hangs"
        done = answers[0]
        error, status, err = done.exception, done.exit_code, done.stderr
        if isinstance(error, FarmhandError):
            status, err = error.exit_code, err + f"{one_line(str(error))}\n"
        elif error is not None and not isinstance(error, SystemExit):
            raise error
        elif isinstance(done.return_value, int):
            status = done.return_value
        assert not HOSTILE.search(done.stdout + err)
        assert max(map(len, err.splitlines()), default=0) < 5000
        return Said(status, done.stdout, err)


@pytest.fixture
def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    # Signals are the main thread's.
    monkeypatch.setattr("farmhand.cli.signals._SIGNALS", ())
    # What is waited for takes a second or two here, not a minute. Elsewhere the good host may be as slow as it likes.
    callspec = getattr(request.node, "callspec", None)
    case = callspec.params.get("case", "") if callspec else ""
    return Desk(tmp_path, monkeypatch, *((1.5, 0.5) if _WAITED_FOR.search(case) else (60.0, 30.0)))


#: Hosts whose answers are only ended by the time that they may take.
_WAITED_FOR = re.compile("slow|closed|endless|chunk size|does not end|without end")
DOCTOR = [word for name in ("environment", "shells", "login", "claude", "key", "key-age", "api", "spool", "prices",
          "at-rest") for word in ("--skip", name)]  # fmt: skip


def look(desk: Desk) -> None:
    """The verbs that only look, beside `cost`, which has its own test of what it merges."""
    shown = json.loads(desk.run("status", "--json").out)["hosts"]
    assert shown["good"]["version"] == "0.1.0"
    assert "bad" in shown["bad"]["error"]["message"]
    for verb in (["status"], ["top"]):
        said = desk.run(*verb)
        assert said.status == 4
        assert "good" in said.out
        assert said.err.count("\n") == 1
        assert "bad" in said.err
    watches = [HostWatch(name, hosts.Host(name=name, address=name), 1.0) for name in ("bad", "good")]
    for watch in watches:
        watch.ask()
        watch.close()
    status_view.screen(watches, 2.0)
    assert [watch.error is None for watch in watches] == [False, True]


@pytest.mark.parametrize("case", EVERYWHERE)
def test_an_answer_that_is_none_is_that_host_s_problem(desk: Desk, case: str, tmp_path: Path) -> None:
    desk.bad = Hostile("bad", EVERYWHERE[case])
    if case.startswith(("slow", "closed")):  # each of the verbs waits for it as long as it may
        desk.patience_s = 0.2
    look(desk)
    said = desk.run("cost", "--json", "--no-interactive", "--by", "host")
    found = json.loads(said.out)
    assert said.status == 4
    assert [row["key"] for row in found["groups"]] == ["good"]
    assert {host["host"]: bool(host["error"]) for host in found["hosts"]} == {"bad": True, "good": False}
    assert json.loads(desk.run("report", "--json").out)["figures"]["whole"]["requests"] == 1
    listed(desk)
    said = desk.run("doctor", *DOCTOR, "--json")
    lines = {(line["host"], line["name"]): line for line in json.loads(said.out)["checks"]}
    assert (said.status, lines["good", "canary"]["ok"], lines["bad", "reach"]["ok"]) == (1, True, False)
    said = desk.run("run", "--no-stdin", "hi")
    assert (said.status, said.out) == (0, "hello\n")
    assert "bad" in said.err
    flushed(desk)
    rotated(desk, tmp_path)


def listed(desk: Desk) -> None:
    """The tasks of the good host are listed, and the other one is named."""
    said = desk.run("list")
    assert said.status == 0
    assert [line.split()[0] for line in said.out.splitlines()] == ["of-good"]
    assert "bad" in said.err


def flushed(desk: Desk) -> None:
    """What waits for the good host is answered although the bad one is visited first."""
    spool = open_spool(desk.settings)
    for name in ("bad", "good"):
        spool.add({"id": f"for-{name}", "prompt": "p"}, wanted=name)
    said = desk.run("flush", "--json")
    found = json.loads(said.out)
    assert [entry["id"] for entry in found["waiting"] if entry["host"] != "good"] == ["for-bad"]
    assert desk.good.tasks.count("for-good") == 1
    assert len(found["problems"]) == 1
    assert "bad" in found["problems"][0]
    for name in ("bad", "good"):
        spool.drop(f"for-{name}")


def rotated(desk: Desk, directory: Path) -> None:
    """The other host has the new key, and the old one is kept, since this one may hold it."""
    (directory / "world").mkdir()
    world = World(directory / "world", hosts=("good",))
    machine = world.machine()
    bad = fleet.RotationHost("bad", lambda: Line(desk.bad, desk.patience_s))
    machine = replace(machine, hosts=[bad, *machine.hosts])
    assert machine.stage(NEW)
    with pytest.raises(WireError, match="these hosts may hold it: bad") as caught:
        machine.advance()
    assert (caught.value.code, world.keys["good"]) == ("hosts_unreached", NEW)


@pytest.mark.parametrize("case", HISTORIES)
def test_a_history_that_is_none(desk: Desk, case: str) -> None:
    (where, pieces), taken = HISTORIES[case]
    desk.bad = Hostile("bad", pieces, where)
    if not taken and case != "more without end":
        return listed(desk)
    said = desk.run("list", "--json")
    found = json.loads(said.out)
    assert (said.status, {task["host"] for task in found["tasks"]}) == (0, {"bad", "good"})
    for verb in (["list"], ["show", found["tasks"][0]["id"], "--json"], ["show", found["tasks"][1]["id"], "--json"]):
        assert desk.run(*verb).status == 0
    return None


@pytest.mark.parametrize("case", SOMEWHERE)
def test_an_answer_that_is_none_behind_an_honest_greeting(desk: Desk, case: str) -> None:
    where, pieces = SOMEWHERE[case]
    desk.bad = Hostile("bad", pieces, where)
    if where.startswith(("^/v1/charges", "^/v1/finished")):
        said = desk.run("cost", "--json", "--no-interactive", "--by", "host")
        found = json.loads(said.out)
        errors = {host["host"]: host["error"] for host in found["hosts"]}
        assert (said.status, errors["good"]) == (4, None)
        assert errors["bad"].startswith("bad: ")
        good = next(row for row in found["groups"] if row["key"] == "good")
        assert good["spent_usd"] == "0.001"
        assert desk.run("report").status == 4
        return
    said = desk.run("run", "--no-stdin", "hi")
    assert said.status in (1, 4)
    assert said.out == ""
    assert "bad: " in said.err
    lines = json.loads(desk.run("doctor", *DOCTOR, "--json").out)["checks"]
    canaries = {line["host"]: line for line in lines if line["name"] == "canary"}
    assert (canaries["bad"]["ok"], canaries["good"]["ok"]) == (False, True)
    assert "bad" in canaries["bad"]["detail"]


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"state": "hibernating", "later": {"deep": [[1]]}}, "hibernating"),
        ({"version": "9.9-\ud83d", "waiting": [{"reason": "moon", "tasks": 2, "detail": "x"}]}, "9.9-\ufffd"),
        ({"slots": {"api": {"total": 1, "free": -1}, "gpu": {"total": 1, "free": 1}}}, "2/1"),
        ({"key": None, "cli": None, "budget_day": None, "waiting": None, "throughput": None}, "none"),
    ],
)
def test_what_a_newer_agent_says_is_taken(desk: Desk, fields: dict[str, Any], shown: str) -> None:
    body = {**desk.bad.status(), **fields}
    desk.bad.status = lambda: body  # type: ignore[method-assign]
    said = desk.run("status")
    assert (said.status, said.err) == (0, "")
    assert shown in said.out
    assert json.loads(desk.run("status", "--json").out)["hosts"]["bad"]["version"].startswith(("0.1.0", "9.9"))


def test_no_text_of_a_host_is_a_command_or_turns_what_is_read(desk: Desk) -> None:
    evil = "a\x1b[2J\x9b31m\x07\u202e\u2066b\u200f\u061c\x7f\ud83d"
    waiting = [{"reason": "x", "tasks": 1, "detail": evil}]
    body = {**desk.bad.status(), "state": evil[:5], "version": evil, "upstream": evil, "waiting": waiting, "key": evil}
    desk.bad.status = lambda: body  # type: ignore[method-assign]
    for verb in (["status"], ["status", "--json"], ["top"], ["top", "--json"], ["doctor", *DOCTOR, "--no-canary"]):
        said = desk.run(*verb)
        assert "\ufffd" in said.out or "\\u009b" in said.out
    assert json.loads(desk.run("status", "--json").out)["hosts"]["bad"]["upstream"] == evil[:-1] + "\ufffd"


def test_the_table_is_long_enough() -> None:
    verbs = ("status", "top", "cost", "report", "doctor", "run", "flush", "rotate")
    assert len(EVERYWHERE) * len(verbs) + len(SOMEWHERE) * 2 > 40 * len(verbs)
