"""What an older version has left on the workstation is taken over. Its files are written here as it wrote them.

The older version is the one in which each hosts file had a spool of its own.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from pathlib import Path

from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import Workstation, entry, received
from tests.integration.dispatch.sshd import Sshd
from tests.support.agent import Agent
from tests.support.messages_api import MessagesApi

#: The first form of a batch's journal, as far as it is looked at.
JOURNAL = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE host (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE line (n INTEGER PRIMARY KEY, at INTEGER NOT NULL, id TEXT NOT NULL UNIQUE);
CREATE TABLE gone (host INTEGER NOT NULL, wire TEXT NOT NULL, PRIMARY KEY (host, wire)) WITHOUT ROWID;
CREATE TABLE held (n INTEGER PRIMARY KEY, line BLOB NOT NULL);
INSERT INTO meta VALUES('batch','b89f5d50a53f7');
PRAGMA user_version = 1;
"""
DONE = (
    '{"n":1,"id":"t0","host":"farm1","state":"succeeded","text":"kept","structured":null,"model":"claude-haiku-5-5",'
    '"engine":"api","usage":{"input_tokens":11,"output_tokens":20,"cache_creation_input_tokens":0,'
    '"cache_creation_1h_input_tokens":0,"cache_read_input_tokens":0,"requests":1},"cost_usd":0.000012,"attempts":1,'
    '"retries":0,"uncertain":0,"queued_s":0.006,"run_s":0.016,"stop_reason":"end_turn","error":null,"labels":{}}\n'
)


def queued(directory: Path, number: int, task_id: str, prompt: str, sent: str = "") -> None:
    """A task in a spool."""
    for place in (directory, directory / "waiting", directory / "results"):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    task = {"id": task_id, "prompt": prompt, "timeout_s": 60.0}
    document = {"task": task, "wanted": "", "sent": sent, "queued_at": time.time() - 7200}
    (directory / "waiting" / f"{number:012d}-{task_id}.json").write_text(json.dumps(document))
    (directory / "lock").touch(0o600)


async def test_what_waited_in_two_spools_is_seen_and_sent_once(
    workstation: Workstation, farm: Sshd, api: MessagesApi, agent: Agent
) -> None:
    state, other = workstation.home / ".local/state/farmhand", workstation.home / "other.json"
    other.write_text(json.dumps({"hosts": {"farm1": entry(farm)}}))
    apart = state / f"spool-{hashlib.sha256(str(other).encode()).hexdigest()[:8]}"
    queued(state / "spool", 1, "q1", "for usual")
    queued(apart, 1, "q2", "for other")
    queued(apart, 2, "q3", "at the host", sent="farm1")
    (apart / "waiting" / ".000000000003-q4.json.new").write_text("half of it")
    await agent.submit({"id": "q3", "prompt": "at the host", "timeout_s": 60.0})

    status = await workstation.run("farmhand", "status")
    assert "kept here for the hosts of the usual hosts.json: 1 queued, 0 sent" in status.out.decode()
    what = f"a hosts file that an older version did not note, in {apart}"
    assert f"kept here for {what}: 1 queued, 1 sent" in status.out.decode()
    alone = await workstation.run("farmhand", "flush", "q2")
    assert (alone.status, alone.err.count("\n")) == (4, 1)
    assert alone.err.startswith(f"farmhand: 1 task waits for {what}: farmhand flush with the FARMHAND_HOSTS_FILE")
    doctor = await workstation.run("farmhand", "doctor", "--json", "--no-canary", "--no-ask-shell")
    (said,) = (check["detail"] for check in json.loads(doctor.out)["checks"] if check["name"] == "spool")
    assert said == f"2 tasks wait, the oldest for 2.0 h; 1 for {what}"
    first = await workstation.run("farmhand", "flush", "--wait")
    assert first.status == 4
    assert f"2 tasks wait for {what}" in first.err

    workstation.environment["FARMHAND_HOSTS_FILE"] = str(other)
    second = await workstation.run("farmhand", "flush", "--wait")
    assert (second.status, second.err) == (0, "")
    assert second.out.count(b"succeeded") == 3
    again = await workstation.run("claude-cheap", "--id", "q2", "--timeout", "60", "for other")
    assert (again.status, b"for other" in again.out) == (0, True)
    assert sorted(received(api)) == ["at the host", "for other", "for usual"]
    assert not apart.exists()


async def test_a_waiting_task_of_another_spool_can_be_dropped(workstation: Workstation, farm: Sshd) -> None:
    apart = workstation.home / ".local/state/farmhand/spool-0a1b2c3d"
    queued(apart, 1, "q1", "never mind")
    dropped = await workstation.run("farmhand", "flush", "--drop", "q1")
    assert (dropped.status, dropped.err) == (0, "farmhand: task q1 is forgotten\n")
    assert (await workstation.run("farmhand", "flush")).err == "farmhand: nothing is queued\n"


async def test_a_batch_of_an_older_version_is_refused_and_left_as_it_is(
    tmp_path: Path, api: MessagesApi, workstation: Workstation
) -> None:
    """Its journal has other tables: what is done there must not be run, and paid for, again unasked."""
    farm = Farm(tmp_path, api, workstation)
    await farm.start()
    try:
        farm.write([{"id": f"t{n}", "prompt": f"number {n}"} for n in range(3)])
        farm.out.write_text(DONE)
        path = Path(f"{farm.out}.farmhand")
        with sqlite3.connect(path) as journal:
            journal.executescript(JOURNAL)
        journal.close()
        before = path.read_bytes()
        done = await farm.batch()
        assert done.status == 2
        assert done.err.splitlines()[-1].startswith(f"farmhand: {path} was written by another version of farmhand")
        assert (farm.out.read_text(), path.read_bytes(), farm.prompts()) == (DONE, before, [])
    finally:
        await farm.stop()
