"""farmhand batch with the real ansible-runner, the real daemon, and the loopback API."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import Workstation, entry
from tests.integration.dispatch.sshd import Sshd
from tests.integration.dispatch.test_farmhand_task import ssh_inventory
from tests.support.agent import Agent
from tests.support.hostile import TURNS
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.messages_api.faults import Fault


@pytest.fixture
async def farm(tmp_path: Path, api: MessagesApi, workstation: Workstation) -> AsyncIterator[Farm]:
    farm = Farm(tmp_path, api, workstation)
    yield farm
    await farm.stop()


async def test_every_task_has_one_result_and_the_last_line_says_what_it_cost(farm: Farm) -> None:
    await farm.start()
    farm.write([{"id": "a", "prompt": "one", "labels": {"x": "y"}}, "two", {"prompt": "three", "system": "s"}])
    done = await farm.batch("--label", "z=1", "--system", "t")
    assert done.status == 0, done.err
    results = {result["n"]: result for result in farm.results()}
    assert sorted(results) == [1, 2, 3]
    assert (results[1]["id"], results[1]["host"], results[1]["state"]) == ("a", "farm1", "succeeded")
    assert results[1]["labels"] == {"x": "y", "z": "1"}
    assert sorted(farm.prompts()) == ["one", "three", "two"]
    assert sorted(json.loads(post.body)["system"] for post in farm.api.posts) == ["s", "t", "t"]
    assert done.out.decode().startswith("3 tasks: 3 done, 0 failed, 0 cancelled · US$ 0.0000")
    assert done.out.count(b"\n") == 1
    again = await farm.batch("--label", "z=1", "--system", "t")
    assert (again.status, len(farm.api.posts)) == (0, 3)
    before = r"3 tasks, finished before on \d{4}-\d\d-\d\d at \d\d:\d\d \S+: 3 done, 0 failed, 0 cancelled"
    cost = done.out.decode().split(" · ")[1]
    assert re.fullmatch(f"{before} · {re.escape(cost)} was spent then · nothing was spent now\n", again.out.decode())


async def test_json_is_one_object_and_a_failed_task_is_exit_1_until_it_is_tried_again(farm: Farm) -> None:
    await farm.start()
    farm.write([{"id": f"t{n}", "prompt": f"number {n}."} for n in range(6)])
    farm.api.state.faults.add(Fault(kind="status", status=400, message="no", match="number 3.", count=-1))
    done = await farm.batch("--json", "--ordered")
    summary = json.loads(done.out)
    assert (done.status, summary["total"], summary["done"], summary["failed"]) == (1, 6, 5, 1)
    assert summary["left"] == 0
    assert 0 < summary["cost_usd"] < 1
    before = farm.results()
    assert [result["n"] for result in before] == [1, 2, 3, 4, 5, 6]
    assert before[3]["state"] == "failed"
    assert [(one["code"], one["times"], one["lines"]) for one in summary["failures"]] == [("invalid_request", 1, [4])]
    assert re.fullmatch("in-[0-9a-f]{8}", summary["batch"])
    where = f"see {farm.out}, or farmhand list --failed --batch {summary['batch']}; "
    assert f"farmhand: line 4 of the input: {where}the same command with --retry-failed runs them again" in done.err
    farm.api.state.faults.clear()
    again = await farm.batch("--ordered")
    assert again.status == 1
    assert "farmhand: not done: 1 with invalid_request: " in again.err
    done = await farm.batch("--ordered", "--retry-failed", "--json")
    assert done.status == 0, done.err
    retried = json.loads(done.out)
    assert retried["cost_usd"] == pytest.approx(summary["cost_usd"] + retried["cost_now_usd"])
    assert 0 < retried["cost_now_usd"] < retried["cost_usd"]
    after = farm.results()
    assert [result["n"] for result in after] == [1, 2, 3, 4, 5, 6]
    assert {result["state"] for result in after} == {"succeeded"}
    assert after[:3] + after[4:] == before[:3] + before[4:]
    assert sum("number 3." in prompt for prompt in farm.prompts()) == 2


@pytest.mark.parametrize("options", [[], ["--ordered"]])
async def test_a_killed_client_goes_on_where_it_was(farm: Farm, options: list[str]) -> None:
    await farm.start(slots_api=4)
    farm.api.state.latency_s = 0.2
    farm.write([{"prompt": f"number {n}"} for n in range(60)])
    for enough in (10, 30):
        process = await farm.begin(*options)
        await farm.until(farm.asked(enough))
        process.kill()
        await process.wait()
    torn = farm.out.read_bytes() if farm.out.exists() else b""
    farm.out.write_bytes(torn + b'{"n": 1, "id": "half a li')
    done = await farm.batch(*options)
    assert done.status == 0, done.err
    numbers = [result["n"] for result in farm.results()]
    assert sorted(numbers) == list(range(1, 61))
    assert not options or numbers == sorted(numbers)
    # Nothing ran twice: what was sent before was asked for by its id.
    assert sorted(farm.prompts()) == sorted(f"number {n}" for n in range(60))


async def test_a_result_that_the_output_has_lost_is_fetched_again(farm: Farm) -> None:
    await farm.start()
    farm.write([f"number {n}" for n in range(20)])
    assert (await farm.batch()).status == 0
    lines = farm.out.read_text().splitlines(keepends=True)
    farm.out.write_text("".join(lines[:7]))
    done = await farm.batch("--json")
    assert done.status == 0, done.err
    assert sorted(result["n"] for result in farm.results()) == list(range(1, 21))
    assert len(farm.api.posts) == 20
    costs = sum(result["cost_usd"] for result in farm.results())
    assert json.loads(done.out)["cost_usd"] == pytest.approx(costs)


async def test_ctrl_c_takes_back_what_has_not_started(farm: Farm) -> None:
    await farm.start(slots_api=2)
    farm.api.state.latency_s = 0.5
    farm.write([f"number {n}" for n in range(40)])
    process = await farm.begin()
    await farm.until(farm.asked(6))
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130, err
    assert b"the same command again" in err
    status = await farm.agents[0].get("/v1/status")
    assert (status["queued"], status["awaiting_key"], status["running"]) == (0, 0, 0)
    assert b"left" in out
    ran = len(farm.api.posts)
    assert ran < 40
    assert len(farm.results()) == ran
    farm.api.state.latency_s = 0
    done = await farm.batch()
    assert done.status == 0, done.err
    assert sorted(farm.prompts()) == sorted(f"number {n}" for n in range(40))
    assert {result["state"] for result in farm.results()} == {"succeeded"}


async def test_a_second_ctrl_c_ends_it_at_once_and_nothing_is_left_behind(farm: Farm, tmp_path: Path) -> None:
    await farm.start(slots_api=2)
    farm.workstation.environment["TMPDIR"] = str(tmp_path)
    farm.api.state.latency_s = 60
    farm.write([f"number {n}" for n in range(10)])
    process = await farm.begin()
    await farm.until(farm.asked(2))
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
    _, err = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 143, err
    assert not list(tmp_path.glob("farmhand-*"))
    farm.api.state.latency_s = 0
    await farm.agents[0].stop(signal.SIGKILL)
    await farm.agents[0].start()
    done = await farm.batch()
    assert done.status == 0, done.err
    assert len(farm.results()) == 10


async def test_a_host_that_dies_loses_nothing_and_is_used_again(farm: Farm) -> None:
    await farm.start(2, slots_api=4)
    farm.api.state.latency_s = 0.75
    # More than one host alone has done by the time that the other is back.
    farm.write([f"number {n}" for n in range(400)])
    process = await farm.begin()
    await farm.until(lambda: any(result["host"] == "farm2" for result in farm.results()))
    await farm.agents[1].stop(signal.SIGKILL)
    assert process.stderr is not None
    # Only its next turn notices it.
    await asyncio.wait_for(process.stderr.readuntil(b"unfinished tasks go to the others"), 120)
    began = len(farm.results())
    await farm.agents[1].start()
    await farm.until(lambda: any(r["host"] == "farm2" for r in farm.results()[began:]))
    farm.api.state.latency_s = 0
    out, err = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, err
    assert sorted(result["n"] for result in farm.results()) == list(range(1, 401))
    assert b"farm2 is back" in err
    assert b"400 done" in out


async def test_all_hosts_down_is_exit_4_and_the_batch_can_go_on(farm: Farm) -> None:
    await farm.start(2)
    farm.write(["one", "two"])
    for agent in farm.agents:
        await agent.stop()
    done = await farm.batch()
    assert done.status == 4, done.err
    assert "no farm host answers" in done.err.splitlines()[-1]
    assert not farm.results()
    for agent in farm.agents:
        await agent.start()
    assert (await farm.batch()).status == 0


async def test_a_host_whose_variables_ansible_cannot_use_says_so(farm: Farm) -> None:
    farm.write(["one"])
    farm.inventory.write_text('[farm]\nfarm1 ansible_host=127.0.0.1 ansible_control_path="%(directory)s/x-%C"\n')
    done = await farm.batch()
    assert done.status == 4
    last = done.err.splitlines()[-1]
    reason = "Ansible cannot use its variables: not enough arguments for format string"
    assert last == f"farmhand: no farm host answers: farm1: {reason} (check the inventory)"


async def test_a_pattern_that_matches_no_host_says_so(farm: Farm) -> None:
    farm.write(["one"])
    done = await farm.batch("--hosts", "nobody")
    assert done.status == 3
    assert "no host of the inventory matches 'nobody'" in done.err.splitlines()[-1]


async def test_a_refused_key_stops_the_batch_and_another_goes_on(farm: Farm) -> None:
    await farm.start()
    farm.api.state.keys = frozenset()
    farm.write([f"number {n}" for n in range(50)])
    done = await farm.batch()
    assert done.status == 3, done.err
    last = done.err.splitlines()[-1]
    assert "refused the key" in last
    assert "the same command" in last
    assert DEFAULT_KEY not in done.err
    farm.api.state.keys = frozenset({DEFAULT_KEY})
    assert (await farm.batch()).status == 0
    assert len(farm.results()) == 50


async def test_two_clients_do_not_write_one_output(farm: Farm) -> None:
    await farm.start(slots_api=2)
    farm.api.state.latency_s = 0.3
    farm.write([f"number {n}" for n in range(30)])
    first = await farm.begin()
    await farm.until(farm.asked(1))
    second = await farm.batch()
    assert second.status == 2
    assert "another farmhand batch is at work" in second.err
    assert second.err.count("\n") == 1
    farm.api.state.latency_s = 0
    await asyncio.wait_for(first.communicate(), 60)
    assert first.returncode == 0


async def test_ids_that_are_taken_on_the_host_do_not_matter(farm: Farm) -> None:
    await farm.start()
    await farm.agents[0].run(id="b", prompt="something else")
    farm.write([{"id": name, "prompt": f"number {name}"} for name in "abc"])
    done = await farm.batch()
    assert done.status == 0, done.err
    assert sorted(result["id"] for result in farm.results()) == ["a", "b", "c"]
    assert "number b" in next(result["text"] for result in farm.results() if result["id"] == "b")


async def test_what_a_host_does_not_allow_fails_alone(farm: Farm) -> None:
    await farm.start()
    farm.write([{"prompt": "one"}, {"prompt": "two", "network": "full", "tools": ["Bash"]}, {"prompt": "three"}])
    done = await farm.batch()
    assert done.status == 1
    states = {result["n"]: (result["error"] or {}).get("code") for result in farm.results()}
    assert states == {1: None, 2: "network_refused", 3: None}


async def test_tables_files_and_stdin(farm: Farm, tmp_path: Path) -> None:
    await farm.start()
    table = tmp_path / "table.csv"
    table.write_text('id,name,"what"\nx,"Ann, Lee","a ""q"""\ny,Bob,"two\nlines {1}"\n')
    done = await farm.batch(str(table), "--template", "{name}: {{{what}}}")
    assert done.status == 0, done.err
    assert sorted(farm.prompts()) == ['Ann, Lee: {a "q"}', "Bob: {two\nlines {1}}"]
    assert {result["id"]: result["n"] for result in farm.results()} == {"x": 2, "y": 3}
    farm.api.state.log.clear()
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("a.txt", "b.txt"):
        (texts / name).write_text(f"content of {name}")
    farm.out = tmp_path / "files.jsonl"
    assert (await farm.batch(str(texts), "--files", "--template", "{name}={text}")).status == 0
    assert {result["labels"]["path"] for result in farm.results()} == {str(texts / "a.txt"), str(texts / "b.txt")}
    farm.out = tmp_path / "stdin.jsonl"
    assert (await farm.batch("-", stdin=b'"piped"\n')).status == 0
    assert "piped" in farm.results()[0]["text"]


async def test_the_key_is_in_nothing_that_is_written(farm: Farm, tmp_path: Path) -> None:
    """While it runs and after: journal, output, ansible-runner's files, and every command line and environment."""
    await farm.start(slots_api=2)
    farm.workstation.environment["TMPDIR"] = str(tmp_path)
    farm.api.state.latency_s = 0.3
    farm.write([f"number {n}" for n in range(20)])
    process = await farm.begin()
    await farm.until(farm.asked(4))
    seen = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            seen += path.read_bytes()
        except OSError:
            continue
    assert b"ansible" in seen
    assert DEFAULT_KEY.encode() not in seen
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "repos.env" not in path.name]
    assert any(path.name == "command" for path in written)
    assert any(path.name.endswith(".farmhand") for path in written)
    farm.api.state.latency_s = 0
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err
    written += [path for path in tmp_path.rglob("*") if path.is_file() and "repos.env" not in path.name]
    assert [path for path in set(written) if path.exists() and DEFAULT_KEY.encode() in path.read_bytes()] == []
    assert not list(tmp_path.glob("farmhand-*"))


async def test_over_ssh(workstation: Workstation, tmp_path: Path, agent: Agent, api: MessagesApi, farm: Farm) -> None:
    directory = tmp_path / "sshd"
    directory.mkdir()
    server = Sshd(directory, "")
    server.start()
    try:
        workstation.write_hosts(farm1=entry(server))
        inventory, shell = ssh_inventory(workstation, server, tmp_path)
        with inventory.open("a") as file:
            file.write(f"[farm:vars]\nansible_shell_executable={shell}\nfarmhand_socket={agent.socket}\n")
        farm.inventory = inventory
        farm.write([f"number {n}" for n in range(30)])
        done = await farm.batch()
        assert done.status == 0, done.err
        assert len(farm.results()) == len(api.posts) == 30
    finally:
        server.stop()


async def test_a_hostile_host_ends_no_batch_and_its_word_costs_nothing(farm: Farm) -> None:
    """The second host's agent prints what no agent prints, another thing at each turn."""
    await farm.start(hosts=2)
    turns = farm.directory / "turns"
    turns.mkdir()
    wanted = ("cost below 0", "deep", "digits", "waiting has a number", "error is a number", "a result is a text")
    for number, case in enumerate(wanted):
        (turns / str(number)).write_bytes(b"FARMHAND-TURN " + TURNS[case])
    count, shell = farm.directory / "count", farm.directory / "shell"
    # What the host's shell does with the command of a turn.
    shell.write_text(
        "#!/bin/sh\n"
        'case "$*" in *jada-agent*turn*)\n'
        f"cat > /dev/null; echo >> {count}; n=$(wc -l < {count}); exec cat {turns}/$(( (n - 1) % {len(wanted)} ));;\n"
        'esac\nexec /bin/sh "$@"\n'
    )
    shell.chmod(0o755)
    inventory = farm.inventory.read_text()
    farm.inventory.write_text(inventory.replace("farm2 ", f"farm2 ansible_shell_executable={shell} "))
    farm.api.state.latency_s = 0.2
    farm.write([f"number {n}" for n in range(60)])
    done = await farm.batch("--max-usd", "1")
    assert done.status == 0, done.err
    results = farm.results()
    assert sorted(result["n"] for result in results) == list(range(1, 61))
    assert {result["host"] for result in results} == {"farm1"}
    assert all(result["cost_usd"] > 0 for result in results)
    assert "farm2: its answer is not one of the wire: " in done.err
    assert count.exists()
