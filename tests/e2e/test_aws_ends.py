"""What ends work on AWS before it is done, in real containers: its budget, its key, a container that is killed.

Nothing is lost, nothing costs more than was allowed, and the operator is told what happened.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.keys import fingerprint
from farmhand.core.money import PICO_PER_USD
from tests.support.aws_batch import AwsBatch, billed_pico, lines, pico
from tests.support.aws_site import AwsSite
from tests.support.messages_api import DEFAULT_ADMIN_KEY
from tests.support.pair import bash, docker
from tests.support.rotation import new_key


class Budget:
    """A batch with money for a part of its tasks only. Its command waits for most of its time, beside other tests."""

    def __init__(self, site: AwsSite, directory: Path, *, children: int, tasks: int, cap: str) -> None:
        self._cap = cap
        self._batch = AwsBatch(site, directory, "budget", lines("budget", children * tasks), shard=tasks)
        self.process = site.start(*self._batch.argv, "--max-usd", cap, "--json")

    def check(self) -> None:
        """It has stopped within its limit, to the last digit; with more it ends, and pays for nothing twice."""
        batch, cap = self._batch, pico(self._cap)
        done = batch.site.done(self.process, timeout_s=600)
        last = done.stderr.splitlines()[-1]
        assert (done.returncode, "raise --max-usd and give the same command" in last) == (5, True), done.stderr
        item, some = batch.item(), batch.results()
        assert (item.state, item.reason, item.leases, item.limit) == ("stopping", "budget", {}, cap)
        assert 0 < len(some) < len(batch.ids)
        assert 0 < batch.billed_pico() == item.spent == batch.spent_pico() <= item.taken <= cap
        asked = len(batch.posts())
        batch.check(batch.end("--max-usd", "1"))
        assert batch.item().limit == pico("1")
        assert len(batch.posts()) - asked == len(batch.ids) - len(some)


@pytest.fixture(scope="module")
def budget(made_site: AwsSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Budget]:
    made = Budget(made_site, tmp_path_factory.mktemp("budget"), children=3, tasks=40, cap="0.0008")
    yield made
    made.process.kill()


def rotation(site: AwsSite, directory: Path, *, children: int) -> None:
    """Rotate the key while a batch runs: no task fails, the old key is dead, and no stage of the secret has it."""
    names = site.add("turn")
    old, new, api = new_key(1), new_key(2), site.api
    api.keys(old, site.api_process.key)
    files = {}
    for name, value in (("new", new), ("admin", DEFAULT_ADMIN_KEY)):
        files[name] = directory / f"{name}.env"
        files[name].write_text(f"ANTHROPIC_API_KEY={value}\n")
        files[name].chmod(0o600)
    here = {"FARMHAND_AWS_ENVIRONMENT": "turn", "FARMHAND_ADMIN_URL": api.url, "OLD": old}
    here |= {"FARMHAND_ADMIN_KEY_SOURCE": f"file:{files['admin']}"}
    put = site.farmhand("cloud", "credential", "put", "--source", "env:OLD", environ=here)
    assert put.returncode == 0, put.stderr
    few = ("--max-usd", "5", "--concurrency", str(4 * children))
    batch = AwsBatch(site, directory, "turning", lines("turning", 100 * children), *few, shard=100, names=names)
    api.latency(ms=3000)  # slow enough for every child to have work left, however long the rotation takes
    running = site.start(*batch.argv, "--json", environ=batch.environ)
    site.aws.until(lambda: len({shard_of(post, 100) for post in batch.posts()}) == children, 300)
    api.keys(old, new, site.api_process.key)
    turned = site.farmhand("cloud", "credential", "rotate", "--new-key", f"file:{files['new']}", environ=here)
    assert turned.returncode == 0, turned.stderr
    at = time.time()
    assert set(api.accepted()) == {new, site.api_process.key}
    secret = site.aws.client("secretsmanager").describe_secret(SecretId=names.secret("key"))
    assert [held for held in secret["VersionIdsToStages"].values() if held] == [["AWSCURRENT"]]
    api.latency()
    done = site.done(running)
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    batch.check(whole)
    # Each child had the old key, and was started once more with the new one.
    assert whole["place"]["attempts"] == 2 * children
    assert {retry["reason"]: retry["times"] for retry in whole["place"]["retries"]} == {
        "stopped with work left": children
    }
    after = [post for post in batch.posts() if post["time"] > at]
    assert {post["headers"]["x-api-key"] for post in after if post["status"] == 200} == {new}
    assert {post["headers"]["x-api-key"] for post in after[-20:]} == {new}
    status = json.loads(site.farmhand("cloud", "credential", "status", "--json", environ=here).stdout)
    assert [(row["fingerprint"], row["trouble"]) for row in status["credentials"]] == [(fingerprint(new), "")]


def shard_of(post: dict[str, Any], size: int) -> int:
    """The number of the shard of a small task, from its prompt."""
    found = re.search(r"line (\d+) of ", post["body"])
    assert found is not None
    return int(found[1]) // size


def container(site: AwsSite, part: str, order: str, index: int | None = None) -> str:
    """The running container of a part (agent, worker) of a task with this in its order, or of a child of a job."""
    mine = ("--filter", f"label={site.label}", "--filter", f"label=farmhand.container={part}")
    found = docker("ps", *mine, "--format", "{{.Names}}").split()
    agents = {name: f"{name.rpartition('-')[0]}-agent" for name in found}
    child = "" if index is None else f'"AWS_BATCH_JOB_ARRAY_INDEX={index}"'
    # Of a task that is just ending the agent may be gone already.
    inspected = {
        name: subprocess.run(["docker", "inspect", agent], capture_output=True, text=True, check=False)
        for name, agent in agents.items()
    }
    shown = {name: done.stdout for name, done in inspected.items()}
    [one] = [name for name, text in shown.items() if f"/{order}/in/" in text and child in text]
    return one


def run_out_of_memory(worker: str) -> None:
    """Let the kernel kill the launcher for the container's memory, of which a program in it takes all.

    The task's own programs come first; what would say that of them is held up.
    """
    for pid in docker("top", worker, "-eo", "pid").split()[1:]:
        with suppress(FileNotFoundError, ProcessLookupError):  # the task's commands come and go
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"farmhand.cloud.launcher" in words:
                Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
            elif b"sandbox.py" in words:
                os.kill(int(pid), signal.SIGSTOP)
    take = "x = [bytearray(b'x') * (1 << 26) for _ in range(1 << 10)]"
    done = subprocess.run(["docker", "exec", worker, "python3", "-c", take], capture_output=True, check=False)
    assert done.returncode == 137, done.stderr


HELD = bash("until [ -e /tmp/go ]; do sleep 0.2; done")


def test_containers_that_are_killed_lose_no_task_and_are_told(site: AwsSite, budget: Budget, tmp_path: Path) -> None:
    """The worker of a child runs out of memory, the agent of another one is killed, a third one has no trouble."""
    site.api.rule("of killed", HELD, {"text": "done"})
    batch = AwsBatch(site, tmp_path, "killed", lines("killed", 3, tools=["Bash"]), "--max-usd", "1", shard=1)
    running = site.start(*batch.argv, "--json")
    site.aws.until(lambda: len(batch.posts()) == 3, 300)
    run_out_of_memory(container(site, "worker", "killed", 0))
    docker("kill", container(site, "agent", "killed", 1))
    site.api.clear()
    docker("exec", container(site, "worker", "killed", 2), "touch", "/tmp/go")
    done = site.done(running)
    assert done.returncode == 0, done.stderr
    assert "1 container was started again (the worker container ran out of memory)" in done.stderr
    assert "1 task has no result (the agent container was killed): sent again" in done.stderr
    whole = json.loads(done.stdout)
    batch.check(whole)
    place = whole["place"]
    assert (len(place["jobs"]), place["containers"], place["attempts"]) == (2, 4, 5)
    # What the killed agent has spent is known to nobody, so its whole lease counts as spent.
    item = batch.item()
    assert batch.billed_pico() <= item.taken
    assert item.uncertain > 0
    assert pico(place["unsettled_usd"]) == item.uncertain


def test_a_single_task_whose_container_is_killed(site: AwsSite, budget: Budget) -> None:
    site.api.rule("hold on", HELD, {"text": "done"})
    words = ("run", "--place", "fargate", "--json", "--tools", "Bash", "hold on of single", "--id")
    started = [site.start(*words, name) for name in ("no-worker", "no-agent")]
    # What is in the bucket is not lost, and the ledger is there every two seconds.
    site.aws.until(lambda: all(site.objects(f"/{name}/ledger/") for name in ("no-worker", "no-agent")), 300)
    run_out_of_memory(container(site, "worker", "no-worker"))
    docker("kill", container(site, "agent", "no-agent"))
    first, second = [site.done(process) for process in started]
    assert first.returncode == second.returncode == 1
    assert "the worker container ran out of memory" in first.stderr
    error = json.loads(first.stdout)["error"]
    assert (error["code"], "it was killed, or ran out of memory" in error["message"]) == ("agent_error", True)
    assert "the task left no result" in second.stderr
    assert "exit status 137" in second.stderr
    # The same command begins a task without a result once more, and its cost is that of both.
    site.api.rule("hold on", {"text": "done"})
    again = site.farmhand(*words, "no-agent")
    assert (again.returncode, json.loads(again.stdout)["text"]) == (0, "done")
    rows = {row["id"]: row for row in json.loads(site.farmhand("cloud", "cost", "--json").stdout)["rows"]}
    assert rows["no-agent"]["containers"] == 2
    assert json.loads(again.stdout)["place"]["usd"] == rows["no-agent"]["compute_usd"]
    model = sum(Decimal(rows[name]["model_usd"]) for name in ("no-worker", "no-agent"))
    assert model * PICO_PER_USD == billed_pico(site.posts("of single"))


def test_a_rotated_key_fails_no_task_and_is_dead_afterwards(site: AwsSite, budget: Budget, tmp_path: Path) -> None:
    rotation(site, tmp_path, children=3)


def test_a_budget_holds_over_all_children_and_with_more_the_same_command_ends(site: AwsSite, budget: Budget) -> None:
    budget.check()
