"""What ends work on AWS before it is done, in real containers: its budget, its key, a container that is killed.

Nothing is lost, nothing costs more than was allowed, and the operator is told what happened.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.keys import fingerprint
from tests.support.aws_batch import AwsBatch, lines, pico
from tests.support.aws_site import AwsSite
from tests.support.messages_api import DEFAULT_ADMIN_KEY
from tests.support.pair import bash, docker
from tests.support.rotation import new_key


class Budget:
    """A batch with money for a part of its tasks only. Its command waits for most of its time, beside other tests."""

    def __init__(self, site: AwsSite, directory: Path, *, children: int, tasks: int, cap: str) -> None:
        self._cap = cap
        self._batch = AwsBatch(site, directory, "budget", lines("budget", children * tasks), shard=tasks)
        self._process = site.start(*self._batch.argv, "--max-usd", cap, "--json")

    def check(self) -> None:
        """It has stopped within its limit, to the last digit; with more it ends, and pays for nothing twice."""
        batch, cap = self._batch, pico(self._cap)
        done = batch.site.done(self._process, timeout_s=600)
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
def budget(made_site: AwsSite, tmp_path_factory: pytest.TempPathFactory) -> Budget:
    return Budget(made_site, tmp_path_factory.mktemp("budget"), children=3, tasks=40, cap="0.0008")


def rotation(site: AwsSite, directory: Path, *, children: int) -> None:
    """Rotate the key while a batch runs: no task fails, the old key is dead, and no stage of the secret has it."""
    names = site.add("turn")
    old, new, api = new_key(1), new_key(2), site.api
    api.keys(old)
    files = {}
    for name, value in (("new", new), ("admin", DEFAULT_ADMIN_KEY)):
        files[name] = directory / f"{name}.env"
        files[name].write_text(f"ANTHROPIC_API_KEY={value}\n")
        files[name].chmod(0o600)
    here = {"FARMHAND_AWS_ENVIRONMENT": "turn", "FARMHAND_ADMIN_URL": api.url, "OLD": old}
    here |= {"FARMHAND_ADMIN_KEY_SOURCE": f"file:{files['admin']}"}
    put = site.farmhand("cloud", "credential", "put", "--source", "env:OLD", **here)
    assert put.returncode == 0, put.stderr
    batch = AwsBatch(site, directory, "turning", lines("turning", 20 * children), shard=20, names=names)
    api.latency(per_s=2 * children)
    running = site.start(*batch.argv, "--max-usd", "5", "--json", **batch.environ)
    site.aws.until(lambda: len({shard_of(post, 20) for post in api.posts()}) == children, 120)
    api.keys(old, new)
    turned = site.farmhand("cloud", "credential", "rotate", "--new-key", f"file:{files['new']}", **here)
    assert turned.returncode == 0, turned.stderr
    at = time.time()
    assert api.accepted() == [new]
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
    after = [post for post in api.posts() if post["time"] > at]
    assert {post["headers"]["x-api-key"] for post in after if post["status"] == 200} == {new}
    assert {post["headers"]["x-api-key"] for post in after[-20:]} == {new}
    status = json.loads(site.farmhand("cloud", "credential", "status", "--json", **here).stdout)
    assert [(row["fingerprint"], row["trouble"]) for row in status["credentials"]] == [(fingerprint(new), "")]


def shard_of(post: dict[str, Any], size: int) -> int:
    """The number of the shard of a small task, from its prompt."""
    found = re.search(r"line (\d+) of ", post["body"])
    assert found is not None
    return int(found[1]) // size


def containers(site: AwsSite, part: str, word: str) -> list[str]:
    """The ids of the running containers of this part (agent, worker) of the tasks whose agent has `word` in its environment."""
    label = ("--filter", f"label={site.label}", "--filter", f"label=farmhand.container={part}")
    shown = docker("ps", *label, "--format", "{{.ID}} {{.Names}}").splitlines()
    found = []
    for line in shown:
        number, name = line.split()
        agent = name.rpartition("-")[0] + "-agent"
        if any(word in one for one in json.loads(docker("inspect", agent))[0]["Config"]["Env"]):
            found.append(number)
    return found


def run_out_of_memory(worker: str) -> None:
    """Let the kernel kill the launcher for the container's memory, of which a program in it takes all."""
    pids = [int(pid) for pid in docker("top", worker, "-eo", "pid").split()[1:]]
    for pid in pids:
        launcher = b"farmhand.cloud.launcher" in Path(f"/proc/{pid}/cmdline").read_bytes()
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000" if launcher else "-900")
    take = "x = [bytearray(1 << 26) for _ in range(1 << 10)]"
    done = subprocess.run(["docker", "exec", worker, "python3", "-c", take], capture_output=True, check=False)
    assert done.returncode != 0


def test_kill(site: AwsSite, tmp_path: Path) -> None:
    site.api.rule("of killed", bash("until [ -e /tmp/go ]; do sleep 0.2; done"), {"text": "done"})
    batch = AwsBatch(site, tmp_path, "killed", lines("killed", 3, tools=["Bash"]), shard=1)
    running = site.start(*batch.argv, "--max-usd", "5", "--json")
    site.aws.until(lambda: len(site.api.posts()) == 3, 120)
    [worker] = containers(site, "worker", "AWS_BATCH_JOB_ARRAY_INDEX=0")
    run_out_of_memory(worker)
    docker("kill", *containers(site, "agent", "AWS_BATCH_JOB_ARRAY_INDEX=1"))
    site.api.clear()
    docker("exec", *containers(site, "worker", "AWS_BATCH_JOB_ARRAY_INDEX=2"), "touch", "/tmp/go")
    done = site.done(running)
    print(done)
    print(batch.item())
    print(batch.spent(), batch.results())
    assert 0


def test_kill_single(site: AwsSite, tmp_path: Path) -> None:
    site.api.rule("wait", bash("until [ -e /tmp/go ]; do sleep 0.2; done"), {"text": "done"})
    words = ("run", "--place", "fargate", "--json", "--tools", "Bash", "wait", "--id")
    first, second = site.start(*words, "memory"), site.start(*words, "agent")
    site.aws.until(lambda: len(site.api.posts()) == 2, 120)
    run_out_of_memory(containers(site, "worker", "/memory/")[0])
    docker("kill", *containers(site, "agent", "/agent/"))
    print(site.done(first))
    print(site.done(second))
    print(site.farmhand("cloud", "cost").stdout)
    site.api.clear()
    print(site.farmhand(*words, "memory"))
    print(site.farmhand(*words, "agent"))
    print(site.farmhand("cloud", "cost").stdout)
    assert 0


def test_the_key_is_rotated(site: AwsSite, tmp_path: Path) -> None:
    rotation(site, tmp_path, children=3)


def test_a_budget(site: AwsSite, budget: Budget) -> None:
    budget.check()
