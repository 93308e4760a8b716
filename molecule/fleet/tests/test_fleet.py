"""One batch over three hosts, of which one is killed, one is cut off, and one is upgraded while it works."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.farm.checkout import copy_checkout
from tests.support.farm.fleet import ROOT, Fleet
from tests.support.messages_api.answer import echo

KILLED, CUT, UPGRADED = "farm1", "farm2", "farm3"
TASKS = 1500
VERSION = "0.1.0.post1"
#: Answers a second while hosts are lost and upgraded: the API holds the other requests, so that the batch lasts.
SLOW = 1.5
LONGEST_S = 900.0
PLACES = ("/etc", "/var", "/run", "/tmp", "/home", "/root", "/srv", "/opt")  # noqa: S108  # of the hosts
Result = dict[str, Any]


@dataclass
class Story:
    """What happened, for the tests to judge."""

    status: int = -1
    log: str = ""
    results: list[Result] = field(default_factory=list)
    #: How many results there were when both hosts were back, and the time at which they were let back.
    at_return: int = 0
    started_again: float = 0.0
    left_at_upgrade: int = 0
    upgrade: str = ""
    upgrade_status: int = -1


class Batch:
    """`farmhand batch` under way."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.out = directory / "out.jsonl"
        self.log = directory / "batch.log"
        self._api = fleet.api.control
        source = directory / "in.jsonl"
        lines = [json.dumps({"id": f"task-{n}", "prompt": f"Number {n}, please"}) for n in range(TASKS)]
        source.write_text("\n".join(lines) + "\n")
        self.slow(20.0)
        self.process = fleet.start("farmhand", "batch", str(source), "--out", str(self.out), log=self.log)

    def slow(self, per_s: float) -> None:
        """Have no more tasks done a second than this."""
        self._api.latency(per_s=per_s)

    def results(self) -> list[Result]:
        """What is written so far, without a line that is being written."""
        text = self.out.read_text() if self.out.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait(self, what: str, until: Callable[[], bool]) -> None:
        """Poll until it is so. The batch must go on meanwhile."""
        deadline = time.monotonic() + LONGEST_S
        while not until():
            said = self.log.read_text()[-2000:]
            assert self.process.poll() is None, f"{what}: the batch has ended: {said}"
            assert time.monotonic() < deadline, f"{what}: not within {LONGEST_S:g} s: {said}"
            time.sleep(0.5)

    def by(self, host: str, after: int = 0) -> int:
        """How many results from the `after`th on are of the host."""
        return sum(result["host"] == host for result in self.results()[after:])

    def finish(self) -> int:
        """Let the rest go fast; the batch's exit status."""
        self._api.latency()
        return self.process.wait(timeout=LONGEST_S)


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    return Fleet(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "fleet", [KILLED, CUT, UPGRADED])


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with another version of the agent."""
    checkout = copy_checkout(ROOT, tmp_path_factory.mktemp("newer") / "checkout")
    package = checkout / "src" / "farmhand" / "__init__.py"
    package.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{VERSION}"', package.read_text()))
    return checkout


def upgrade(newer: Path, *options: str) -> list[str]:
    """The arguments of ansible-playbook that bring one host to the newer version."""
    source = ["-e", f"jada_agent_source={newer}", "--skip-tags", "claude_cli"]
    return ["playbooks/upgrade.yml", "--limit", UPGRADED, *source, *options]


@pytest.fixture(scope="session")
def story(fleet: Fleet, newer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The whole of it, once."""
    directory = tmp_path_factory.mktemp("batch")
    batch = Batch(fleet, directory)
    try:
        yield tell(fleet, newer, batch, directory)
    finally:
        if batch.process.poll() is None:
            batch.process.terminate()
            batch.process.wait(timeout=60)


def tell(fleet: Fleet, newer: Path, batch: Batch, directory: Path) -> Story:
    """Kill one host and cut another off, bring them back, upgrade the third, and let the batch end."""
    story = Story()
    batch.wait("all three work", lambda: all(batch.by(name) >= 10 for name in fleet.names))

    batch.slow(SLOW)
    fleet.hosts[KILLED].kill()
    fleet.hosts[CUT].cut_off()
    for name in (KILLED, CUT):
        batch.wait(f"{name} is missed", lambda name=name: missed(batch, name))  # type: ignore[misc]
    story.started_again = time.time()
    fleet.hosts[KILLED].start()
    fleet.hosts[CUT].join()
    for name in (KILLED, CUT):
        batch.wait(f"{name} is back", lambda name=name: f"{name} is back" in batch.log.read_text())  # type: ignore[misc]
    story.at_return = len(batch.results())
    for name in (KILLED, CUT):
        batch.wait(f"{name} works again", lambda name=name: batch.by(name, story.at_return) > 0)  # type: ignore[misc]

    log = directory / "upgrade.log"
    play = fleet.start("ansible-playbook", *upgrade(newer), log=log)
    batch.wait(f"{UPGRADED} is upgraded", lambda: play.poll() is not None)
    story.upgrade_status, story.upgrade = play.wait(), log.read_text()
    story.left_at_upgrade = TASKS - len(batch.results())
    seen = len(batch.results())
    batch.wait(f"{UPGRADED} works again", lambda: batch.by(UPGRADED, seen) > 0)

    story.status = batch.finish()
    story.results, story.log = batch.results(), batch.log.read_text()
    return story


def missed(batch: Batch, name: str) -> bool:
    """Whether the batch has noticed that the host does not answer."""
    return any(
        name in line and "unfinished tasks go to the others" in line for line in batch.log.read_text().splitlines()
    )


def changes(recap: str, host: str) -> int:
    """How much a playbook changed on a host, which it did not fail on."""
    found = re.search(rf"^{host} +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=0 ", recap, re.MULTILINE)
    assert found, recap[-3000:]
    return int(found[1])


def answered(fleet: Fleet) -> list[dict[str, Any]]:
    """The requests that the API has answered, and counts on being paid for."""
    entries = [json.loads(line) for line in fleet.api.requests.read_text().splitlines()]
    return [entry for entry in entries if entry["path"] == "/v1/messages" and entry.get("status") == 200]


def prompt_of(entry: dict[str, Any]) -> str:
    """What a request asked."""
    content = json.loads(entry["body"])["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[-1]["text"])


def test_nothing_is_lost_and_nothing_failed(story: Story) -> None:
    assert story.status == 0, story.log[-3000:]
    assert Counter(result["id"] for result in story.results) == Counter(f"task-{n}" for n in range(TASKS))
    assert {result["state"] for result in story.results} == {"succeeded"}
    for result in story.results:
        assert result["text"] == echo(f"Number {result['n'] - 1}, please")


def test_nothing_is_invented_and_every_charge_is_accounted_for(story: Story, fleet: Fleet) -> None:
    asked = Counter(map(prompt_of, answered(fleet)))
    ours = {f"Number {n}, please" for n in range(TASKS)}
    assert ours <= set(asked)
    assert {prompt for prompt in asked if prompt not in ours} <= {"Answer with the one word: ready"}

    paid = {entry["request_id"] for entry in answered(fleet)}
    charges = [charge for name in fleet.names for charge in fleet.agent(name, "/v1/charges?limit=10000")]
    finished = [one for name in fleet.names for one in fleet.agent(name, "/v1/finished?limit=10000")]
    booked = {charge["request_id"] for charge in charges}
    assert booked <= paid
    # Answers on their way to a lost host never arrived: those requests are marked, and nothing else is missing.
    assert len(paid - booked) <= sum(one["uncertain"] for one in finished)


@pytest.mark.parametrize("name", [KILLED, CUT])
def test_a_lost_host_works_again(story: Story, fleet: Fleet, name: str) -> None:
    """By its own ledger, which knows nothing of what the batch says about it."""
    told = {result["id"] for result in story.results[story.at_return :] if result["host"] == name}
    ledger = fleet.agent(name, "/v1/finished?limit=10000")
    since = {one["id"] for one in ledger if one["state"] == "succeeded" and one["started_at"] > story.started_again}
    assert told & since


def test_the_upgrade_happened_under_load_and_disturbed_nothing(story: Story, fleet: Fleet) -> None:
    assert story.upgrade_status == 0, story.upgrade[-4000:]
    assert story.left_at_upgrade > 0
    assert f"{UPGRADED} is upgraded and back in service" in " ".join(story.upgrade.split())
    # The lock is the old one: no index of packages is asked.
    assert re.search(rf"Install what the locks name\][ *]+\nskipping: \[{UPGRADED}\]", story.upgrade)
    assert fleet.agent(UPGRADED, "/v1/status")[0]["version"] == VERSION
    assert fleet.agent(KILLED, "/v1/status")[0]["version"] != VERSION
    assert {one["state"] for one in fleet.agent(UPGRADED, "/v1/finished?limit=10000")} <= {"succeeded", "cancelled"}


def test_a_host_is_emptied_and_taken_back(story: Story, fleet: Fleet) -> None:
    play = ["playbooks/drain.yml", "--limit", KILLED]
    for run, changed in (("--check", 1), ("--diff", 1), ("--diff", 0)):
        done = fleet.run("ansible-playbook", *play, run)
        assert changes(done.stdout, KILLED) == changed
    assert fleet.agent(KILLED, "/v1/status")[0]["state"] == "draining"
    refused = fleet.run("ansible", KILLED, "-m", "farmhand_task", "-a", "prompt=hello")
    assert "draining" in refused.stdout
    back = fleet.run("ansible-playbook", *play, "-e", "drain_state=off")
    assert changes(back.stdout, KILLED) == 1
    assert fleet.agent(KILLED, "/v1/status")[0]["state"] == "running"


def test_the_agent_serves(story: Story, host: Host) -> None:
    service = host.service("jada-agent.service")
    assert service.is_running
    assert service.is_enabled
    journal = host.check_output("journalctl --no-pager -u jada-agent -p warning -o cat")
    assert "Traceback" not in journal, journal[-3000:]


def test_no_key_stays_on_a_host(story: Story, fleet: Fleet) -> None:
    for host in fleet.hosts.values():
        # By stdin: an argument would be in the journal of sudo, and so be found.
        found = host.exec("grep", "-rlaF", "-f", "-", *PLACES, input=fleet.api.key)
        assert (found.stdout, found.stderr) == ("", ""), host.hostname
