"""The place `docker` from the workstation: run, batch, status, cost, down; with the real CLI in real containers."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_code import COMMAND, Station
from tests.support.collector import check_trace, rotel
from tests.support.messages_api import DEFAULT_KEY
from tests.support.pair import ROOT, Pair, docker
from tests.support.repositories import make_repository
from tests.support.schemas import check_said


@pytest.fixture(scope="module")
def made_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair whose containers the commands themselves start."""
    pair = Pair(tmp_path_factory.mktemp("pair"), "place")
    try:
        pair.listen()
        yield pair
    finally:
        pair.down()


@pytest.fixture
def station(made_pair: Pair, tmp_path: Path) -> Station:
    (tmp_path / "home").mkdir()
    station = Station(made_pair.fresh(), tmp_path / "home")
    station.environ["FARMHAND_PLACE"] = "docker"
    return station


def farmhand(station: Station, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`farmhand …`, done."""
    done = subprocess.run(
        [str(COMMAND), *arguments],
        env=station.environ,
        cwd=station.home,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    check_said(arguments, done.stdout)
    print(done.stderr)
    assert "Traceback" not in done.stderr
    return done


def test_a_task_starts_the_containers_and_the_next_one_finds_them(station: Station) -> None:
    first = farmhand(station, "run", "hello")
    assert (first.returncode, first.stdout.startswith("Loopback answer")) == (0, True)
    assert "starting the containers" in first.stderr
    second = farmhand(station, "run", "--engine", "cli", "--json", "hello")
    assert (second.returncode, second.stderr) == (0, "")
    assert json.loads(second.stdout)["engine"] == "cli"
    option = station.environ.pop("FARMHAND_PLACE")
    assert farmhand(station, "run", "--place", option, "hello").returncode == 0


def test_a_batch_runs_each_line_once_although_it_is_stopped(station: Station, tmp_path: Path) -> None:
    lines = [{"id": f"line{n}", "prompt": f"line {n}"} for n in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    station.pair.api.latency(ms=700)
    argv = [str(COMMAND), "batch", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    for number in (signal.SIGINT, signal.SIGKILL):
        running = subprocess.Popen([*argv, "--concurrency", "4"], env=station.environ, cwd=station.home)
        time.sleep(3)
        running.send_signal(number)
        running.wait(60)
    station.pair.api.latency()
    done = farmhand(station, *argv[1:])
    assert done.returncode == 0
    results = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(result["id"] for result in results) == sorted(str(line["id"]) for line in lines)
    asked = [post for post in station.pair.api.posts() if "line " in json.dumps(post)]
    assert len(asked) == 40


def test_a_budget_bends_there_for_a_batch_and_for_a_task(station: Station, tmp_path: Path) -> None:
    asked = ("--model", "sonnet", "--max-tokens", "100", "--max-usd", "0.0009", "--when-spent", "haiku", "--json")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(f"bent {n}") + "\n" for n in range(3)))
    done = farmhand(station, "batch", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl"), *asked)
    assert done.returncode == 0
    assert json.loads(done.stdout)["bent"] == {"haiku": 3}
    task = farmhand(station, "run", *asked, "bent")
    assert (task.returncode, json.loads(task.stdout)["bent"]["way"]) == (0, "haiku")
    models = [post["model"] for post in station.pair.api.posts() if "bent" in json.dumps(post)]
    assert models == ["claude-haiku-5-5"] * 4


def test_status_and_cost_know_the_place(station: Station) -> None:
    farmhand(station, "run", "hello")
    status = farmhand(station, "status", "--json")
    assert json.loads(status.stdout)["hosts"]["docker"]["state"] == "running"
    doctor = farmhand(station, "doctor", "--json", "--no-ask-shell")
    lines = {line["name"]: line for line in json.loads(doctor.stdout)["checks"] if line["host"] == "docker"}
    assert lines["wall"]["detail"] == "unix: a task may open Unix sockets only"
    assert {line["state"] for line in lines.values()} == {"green"}, lines
    station.environ.pop("FARMHAND_PLACE")
    cost = farmhand(station, "cost", "--json", "--no-interactive")
    assert cost.returncode == 0
    assert float(json.loads(cost.stdout)["spent"]["total_usd"]) > 0
    report = farmhand(station, "report", "--json")
    assert json.loads(report.stdout)["figures"]["whole"]["requests"] > 0


async def test_a_call_is_one_trace_with_what_runs_in_the_containers(station: Station, tmp_path: Path) -> None:
    origin = make_repository(tmp_path / "origin", {"f": "one\n"})
    station.does('echo "$TRACEPARENT" > f')
    (tmp_path / "in.jsonl").write_text('"canary one"\n"canary two"\n')
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    station.environ["TRACEPARENT"] = f"00-{trace}-{span}-01"
    calls = (
        ["run", "canary"],
        ["batch", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")],
        ["code", str(origin), "change it", "--trust", "--patch"],
    )
    with rotel(tmp_path) as collector:
        station.environ["FARMHAND_OTEL_ENDPOINT"] = collector.url
        for words in calls:
            done = await asyncio.to_thread(farmhand, station, *words)
            assert done.returncode == 0
        # A batch, and four tasks: three with one request, and one whose tool was one request more.
        found = await collector.until(10)
        seen = collector.log.read_bytes()
    check_trace(found, trace, span, done.stdout)
    assert {one["farmhand.place"] for one in found} == {"docker"}
    for secret in (b"canary", b"change it", DEFAULT_KEY.encode()):
        assert secret not in seen


def test_without_an_engine_it_is_one_line(station: Station) -> None:
    station.environ["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    for words in (["run", "hello"], ["up"], ["down"]):
        done = farmhand(station, *words)
        assert done.returncode == 3
        assert "docker" in done.stderr.lower()
        assert len(done.stderr.strip().splitlines()) == 1
    station.environ["PATH"] = "/nowhere"
    assert "docker cannot be started" in farmhand(station, "run", "hello").stderr


def test_down_removes_the_containers_and_keeps_the_ledger(station: Station) -> None:
    kept = farmhand(station, "run", "--id", "kept", "hello")
    assert kept.returncode == 0
    del station.environ["FARMHAND_PROJECT_DIR"]  # it needs no checkout
    down = farmhand(station, "down")
    station.environ["FARMHAND_PROJECT_DIR"] = str(ROOT)
    assert (down.returncode, "their ledger is kept" in down.stdout) == (0, True)
    assert station.pair.name not in docker("ps", "--all", "--format", "{{.Names}}")
    gone = farmhand(station, "status")
    assert gone.returncode == 4
    assert "its containers do not run (farmhand up --place docker)" in gone.stdout + gone.stderr
    up = farmhand(station, "up")
    assert up.returncode == 0
    # The network is gone, and with it the API: the answer comes from the ledger.
    again = farmhand(station, "run", "--id", "kept", "hello")
    assert (again.returncode, again.stdout) == (0, kept.stdout)
    assert farmhand(station, "up", "--check").returncode == 2
