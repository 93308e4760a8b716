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

JOURNAL = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE host (
    no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    after INTEGER NOT NULL DEFAULT 0,
    cost INTEGER NOT NULL DEFAULT 0,
    uncertain INTEGER NOT NULL DEFAULT 0,
    twice INTEGER NOT NULL DEFAULT 0,
    twice_cost INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE line (
    n INTEGER PRIMARY KEY, at INTEGER NOT NULL, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL,
    wire TEXT NOT NULL UNIQUE,
    round INTEGER NOT NULL DEFAULT 1,
    state INTEGER NOT NULL DEFAULT 0,
    host INTEGER REFERENCES host (no),
    sure INTEGER NOT NULL DEFAULT 0,
    stopped INTEGER NOT NULL DEFAULT 0,
    cost INTEGER
);
CREATE INDEX line_state ON line (state, n);
CREATE TABLE gone (
    host INTEGER NOT NULL, wire TEXT NOT NULL, n INTEGER NOT NULL,
    told INTEGER NOT NULL DEFAULT 0,
    ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (host, wire)
) WITHOUT ROWID;
CREATE TABLE held (n INTEGER PRIMARY KEY, line BLOB NOT NULL);
INSERT INTO host VALUES(1,'farm1',0,12000000,0,0,0);
INSERT INTO line VALUES(1,0,'t0',X'D2529624F85C8062DEBB21E0','t0',1,2,1,1,0,12000000);
INSERT INTO line VALUES(2,35,'t1',X'14EFD950A6DFEFC281E316E1','t1',1,1,1,-1,0,NULL);
INSERT INTO line VALUES(3,70,'t2',X'A6ADFBC664ADC6EFA342E4F8','t2',1,0,NULL,0,0,NULL);
INSERT INTO meta VALUES('batch','b89f5d50a53f7');
INSERT INTO meta VALUES('options','{"defaults":{},"form":"jsonl","ordered":false,"template":null}');
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


async def test_a_batch_that_was_killed_goes_on_where_it_was(
    tmp_path: Path, api: MessagesApi, workstation: Workstation
) -> None:
    farm = Farm(tmp_path, api, workstation)
    await farm.start()
    try:
        farm.write([{"id": f"t{n}", "prompt": f"number {n}"} for n in range(3)])
        farm.out.write_text(DONE)
        with sqlite3.connect(f"{farm.out}.farmhand") as journal:
            journal.executescript(JOURNAL)
            digest = hashlib.sha256(farm.input.read_bytes()).hexdigest()
            journal.execute("INSERT INTO meta VALUES ('input', ?)", (digest,))
        journal.close()
        # The older client had sent the second one when it was killed.
        await farm.agents[0].submit({"id": "t1", "prompt": "number 1", "batch": "b89f5d50a53f7"})
        done = await farm.batch("--json")
        assert done.status == 0, done.err
        told = json.loads(done.out)
        assert (told["batch"], told["done"], told["finished_now"], told["twice"]) == ("b89f5d50a53f7", 3, 2, 0)
        assert sorted(result["n"] for result in farm.results()) == [1, 2, 3]
        assert sorted(farm.prompts()) == ["number 1", "number 2"]
    finally:
        await farm.stop()
