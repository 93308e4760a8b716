"""The places `aws-batch` and `fargate`: real stacks in the double of AWS, real containers, the real command."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.aws_site import AwsSite
from tests.support.collector import check_trace, rotel
from tests.support.pair import bash, docker
from tests.support.repositories import make_repository
from tests.support.storm import Storm

CANARY = "sk-ant-"
WORKER = "label=farmhand.container=worker"


def written(tmp_path: Path, number: int) -> list[str]:
    """The arguments of a batch of so many lines."""
    lines = [{"id": f"line{n}", "prompt": f"line {n} of it"} for n in range(number)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ["batch", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl"), "--place", "aws-batch"]


def results(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def test_a_batch_survives_kills_interruptions_and_faults(site: AwsSite, tmp_path: Path) -> None:
    storm = Storm(site, tmp_path, "storm", number=300, shard=60, seed=11)
    site.api.latency(ms=5000)
    storm.faults(2, among=10)
    with storm.interrupting(2, most_s=3, working=True):
        storm.kill(5, least_s=2, most_s=8)
        whole = storm.end()
    storm.check(whole)
    assert set(storm.hit()) == {"s3", "dynamodb", "batch"}
    described = site.aws.client("batch").describe_jobs(jobs=whole["place"]["jobs"])["jobs"][0]
    assert described["tags"]["farmhand:batch"] == "storm"


def test_what_is_left_alone_is_collected_by_the_same_command(site: AwsSite, tmp_path: Path) -> None:
    argv = [*written(tmp_path, 20), "--shard", "20", "--no-spot"]
    left = site.farmhand(*argv, "--detach")
    assert left.returncode == 0
    assert "20 tasks go on in AWS; the same command collects them" in left.stderr
    assert not results(tmp_path)
    site.aws.until(lambda: not any(task["running"] for task in site.aws.tasks().values()))
    done = site.farmhand(*argv)
    assert (done.returncode, "20 done" in done.stdout) == (0, True)
    assert len(results(tmp_path)) == 20


def test_one_task_runs_on_fargate(site: AwsSite) -> None:
    done = site.farmhand("run", "--place", "fargate", "--json", "--id", "single", "hello")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert (result["state"], result["place"]["name"], result["place"]["vcpu"]) == ("succeeded", "fargate", 0.5)
    assert float(result["place"]["usd"]) > 0
    asked = len(site.api.posts())
    again = site.farmhand("run", "--place", "fargate", "--json", "--id", "single", "hello")
    assert json.loads(again.stdout)["text"] == result["text"]
    assert len(site.api.posts()) == asked
    other = site.farmhand("run", "--place", "fargate", "--id", "single", "something else")
    assert (other.returncode, "another task's" in other.stderr) == (2, True)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "origin")


def test_a_repository_task_runs_on_fargate_and_its_patch_is_judged(site: AwsSite, origin: Path, tmp_path: Path) -> None:
    script = "echo two >> f; mkdir -p .farmhand/out; echo kept > .farmhand/out/a.txt"
    site.api.rule("change it", bash(script), {"text": "done"})
    out = tmp_path / "result"
    done = site.farmhand("code", str(origin), "change it", "--out", str(out), "--patch")
    assert done.returncode == 0, done.stderr
    subprocess.run(["git", "apply"], cwd=origin, input=done.stdout, text=True, check=True)
    assert (origin / "f").read_text() == "one\ntwo\n"
    kept = json.loads((out / "result.json").read_text())
    assert (kept["place"]["name"], kept["place"]["vcpu"], kept["repo"]["patch"]["files"]) == ("fargate", 2.0, 1)
    assert kept["cost_usd"] > 0
    assert (
        "./a.txt"
        in subprocess.run(
            ["tar", "tf", out / "artifacts.tar"], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    site.api.rule("break out", bash("mkdir -p .github/workflows; echo x > .github/workflows/a.yml"), {"text": "done"})
    refused = site.farmhand("code", str(origin), "break out", "--place", "fargate", "--spot")
    assert (refused.returncode, ".github/workflows/a.yml" in refused.stderr) == (5, True)


async def test_a_call_is_one_trace_with_what_its_containers_did(site: AwsSite, origin: Path, tmp_path: Path) -> None:
    site.api.rule("change it", bash('echo "$TRACEPARENT" > f'), {"text": "done"})
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    calls = (
        ["run", "--place", "fargate", "the prompt"],
        written(tmp_path, 2),
        ["code", str(origin), "change it", "--place", "fargate", "--patch"],
    )
    with rotel(tmp_path) as collector:
        environ = {"TRACEPARENT": f"00-{trace}-{span}-01", "FARMHAND_OTEL_ENDPOINT": collector.url}
        for words in calls:
            done = await asyncio.to_thread(site.farmhand, *words, environ=environ)
            assert done.returncode == 0, done.stderr
        # A batch, and four tasks: three with one request, and one whose tool was one request more.
        found = await collector.until(10)
        seen = collector.log.read_bytes()
    check_trace(found, trace, span, done.stdout)
    for secret in (b"the prompt", b"change it", b"line 1", CANARY.encode()):
        assert secret not in seen


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """What the command has said on stderr up to `word`."""
    assert process.stderr is not None
    said = ""
    while word not in said:
        said += (piece := process.stderr.read(1))
        assert piece, said
    return said


def test_a_task_s_text_is_shown_as_it_comes_and_its_log_and_cost_are_there(site: AwsSite, origin: Path) -> None:
    site.aws.until(lambda: not any(task["running"] for task in site.aws.tasks().values()))
    before = set(site.aws.tasks())
    first = {"text": "I look \x1b[2Jfirst\nthen", **bash("until [ -e /tmp/go ]; do sleep 0.2; done")}
    second = {"text": "the API refused nothing", **bash("sleep 1")}
    site.api.rule("talk", first, second, {"text": "all of it is done"})
    process = site.start("code", str(origin), "talk", "--place", "fargate")
    said = read_until(process, "then")
    [arn] = set(site.aws.tasks()) - before
    assert site.aws.tasks()[arn]["running"], "it was shown while the task ran"
    assert "I look \ufffd[2Jfirst\nthen" in said
    number = arn.rpartition("/")[2]
    follower = site.start("cloud", "logs", number, "-f")
    [worker] = docker("ps", "--quiet", "--filter", f"label={site.label}", "--filter", WORKER).split()
    docker("exec", worker, "touch", "/tmp/go")
    out, rest = process.communicate(timeout=120)
    assert process.returncode == 0, rest
    whole = said + rest
    assert [whole.count(words) for words in ("the API refused nothing", "all of it is done")] == [1, 1]
    assert "all of it is done" in out
    # The follower ends by itself.
    log, trouble = follower.communicate(timeout=120)
    assert follower.returncode == 0, trouble
    assert "agent I look \ufffd[2Jfirst\nthen" in log
    assert "all of it is done" in log
    again = site.farmhand("cloud", "logs", number, "--json")
    rows = [json.loads(line) for line in again.stdout.splitlines()]
    assert any("exit 0" in row["text"] for row in rows)
    assert CANARY not in log + again.stdout
    cost = json.loads(site.farmhand("cloud", "cost", "--json").stdout)
    [task] = site.aws.client("ecs").describe_tasks(cluster=site.names.base, tasks=[arn], include=["TAGS"])["tasks"]
    name = next(tag["value"] for tag in task["tags"] if tag["key"] == "farmhand:task")
    row = next(row for row in cost["rows"] if row["id"] == name)
    assert (row["containers"], row["spot"], Decimal(row["model_usd"]) > 0) == (1, False, True)
    assert Decimal(cost["total"]["all_usd"]) >= Decimal(row["compute_usd"]) + Decimal(row["model_usd"])
    assert Decimal(row["compute_usd"]) > 0


def test_ctrl_c_ends_the_task_on_fargate(site: AwsSite) -> None:
    site.api.latency(ms=60_000)
    process = site.start("run", "--place", "fargate", "hello")
    site.aws.until(lambda: any(task["running"] for task in site.aws.tasks().values()))
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopping the task on Fargate" in said
    site.aws.until(lambda: not any(task["running"] for task in site.aws.tasks().values()))


def test_the_money_of_a_batch_and_of_a_task_is_in_farmhand_cost(site: AwsSite, tmp_path: Path) -> None:
    # A home of its own, from which no other environment was used.
    here = {"FARMHAND_DOCKER_NAME": "farmhand-none-of-these", "HOME": str(tmp_path)}
    words = ("--batch", "money", "--shard", "3", "--no-spot", "--json")
    batch = site.farmhand(*written(tmp_path, 6), *words, environ=here)
    single = site.farmhand("run", "--place", "fargate", "--json", "--id", "coin", "hello", environ=here)
    assert (batch.returncode, single.returncode) == (0, 0), batch.stderr + single.stderr
    asked = site.farmhand("cost", "--json", "--no-interactive", "--by", "batch", "--compare", "cloud", environ=here)
    shown = json.loads(asked.stdout)
    again = json.loads(site.farmhand("cost", "--json", "--no-interactive", environ=here).stdout)
    bodies = site.objects("/ledger/").values()
    charges = [json.loads(line, parse_float=Decimal) for body in bodies for line in body.splitlines()]
    model = sum(Decimal(row["cost_usd"]) for row in charges if row.get("charge_id"))
    assert model > 0
    assert Decimal(shown["whole"]["spent_usd"]) == Decimal(again["whole"]["spent_usd"]) == model
    by_batch = {group["key"]: group for group in shown["groups"]}
    assert by_batch["money"]["tasks"] == 6
    told = json.loads(batch.stdout)
    assert float(by_batch["money"]["spent_usd"]) == pytest.approx(told["cost_usd"], abs=1e-12)
    assert float(by_batch["money"]["compute_usd"]) == float(told["place"]["usd"])
    # Two containers and one, a minute each at least, as `farmhand cloud cost` has it too.
    rows = {row["id"]: row for row in json.loads(site.farmhand("cloud", "cost", "--json").stdout)["rows"]}
    assert (rows["money"]["containers"], rows["coin"]["containers"]) == (2, 1)
    minutes = Decimal(rows["money"]["seconds"] + rows["coin"]["seconds"]) / 3600
    # 0.5 vCPU, 1 GB and a public address.
    hourly = Decimal("0.5") * Decimal("0.04048") + Decimal("0.004445") + Decimal("0.005")
    both = sum(Decimal(rows[name]["compute_usd"]) for name in ("money", "coin"))
    assert both == pytest.approx(minutes * hourly, abs=Decimal("1e-9"))
    assert Decimal(shown["compute"]["total_usd"]) == sum(Decimal(row["compute_usd"]) for row in rows.values())
    assert json.loads(single.stdout)["place"]["usd"] == rows["coin"]["compute_usd"]
    assert [one["mode"] for one in shown["comparison"]["networks"]] == ["public"]
    assert shown["comparison"]["compute"] == "measured"
    page = site.farmhand("report", "--json", environ=here)
    assert json.loads(page.stdout)["figures"]["compute"]["total_usd"] == shown["compute"]["total_usd"]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["run", "--place", "aws-batch", "hello"], 2, "--place fargate"),
        (["batch", "in.jsonl", "--out", "o", "--place", "fargate"], 2, "--place aws-batch"),
        (["batch", "in.jsonl", "--out", "o", "--place", "aws-batch", "--economy"], 2, "needs no containers"),
        (["batch", "in.jsonl", "--out", "o", "--place", "docker", "--shard", "5"], 2, "--place aws-batch"),
        (["batch", "in.jsonl", "--out", "o", "--place", "aws-batch", "--shard", "1001"], 2, "--shard"),
        (["batch", "none.jsonl", "--out", "o", "--place", "aws-batch"], 2, "none.jsonl"),
        (["batch", "bad.jsonl", "--out", "o", "--place", "aws-batch"], 2, "nothing was sent"),
        (["status", "--place", "fargate"], 2, "farmhand cloud status"),
        (["code", "ext::sh", "x", "--place", "fargate"], 2, "not a repository"),
        (["code", ".", "x", "--place", "fargate", "--ref", "--upload-pack=x"], 2, "not the name"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(site: AwsSite, words: list[str], status: int, told: str) -> None:
    (site.directory / "in.jsonl").write_text('"hello"\n')
    (site.directory / "bad.jsonl").write_text('"hello"\n{"prompt": 5}\n')
    before = (len(site.objects("")), len(site.aws.tasks()))
    done = site.farmhand(*words)
    assert (done.returncode, told in done.stderr) == (status, True), done.stderr
    assert (len(site.objects("")), len(site.aws.tasks())) == before
    assert not list(site.directory.glob("o*"))


@pytest.mark.parametrize(
    ("changed", "status", "told"),
    [
        ({"FARMHAND_AWS_ENVIRONMENT": "other"}, 3, "farmhand cloud up"),
        ({"FARMHAND_AWS_ENVIRONMENT": "Other!"}, 3, "aws_environment"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}, 4, "did not answer"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, 3, "log in"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, 3, "region"),
        ({"FARMHAND_AWS_ACCOUNT": "999999999999"}, 5, "999999999999"),
        ({"FARMHAND_AWS_PRICES_FILE": "/nowhere/prices.toml"}, 3, "/nowhere/prices.toml"),
    ],
)
@pytest.mark.parametrize("verb", ["batch", "run", "code"])
def test_an_environment_that_is_not_there_is_one_line(
    site: AwsSite, tmp_path: Path, verb: str, changed: dict[str, str], status: int, told: str
) -> None:
    words = {"batch": written(tmp_path, 3), "run": ["run", "--place", "fargate", "hello"], "code": ["code", ".", "x"]}
    before = len(site.objects(""))
    done = site.farmhand(*words[verb], *(["--place", "fargate"] if verb == "code" else []), environ=changed)
    assert (done.returncode, told in done.stderr) == (status, True), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(site.objects("")) == before
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "out.jsonl.farmhand").exists()
