"""The history of tasks, over real ssh to real daemons: list, show, logs, wait, cancel, again, and the last answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dispatch.conftest import BIN, Done, Workstation, agent_knows, entry, received
from tests.integration.dispatch.sshd import Sshd, bridge_to, serve
from tests.integration.dispatch.test_fallback import down
from tests.support.agent import Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi
from tests.support.pictures import png
from tests.support.screen import screen


async def said(workstation: Workstation, *arguments: str) -> dict[str, Any]:
    """What a verb says in JSON, when it ends well."""
    done = await workstation.run("farmhand", *arguments, "--json")
    assert done.status == 0, done.err
    document: dict[str, Any] = json.loads(done.out)
    return document


async def ids(workstation: Workstation, *arguments: str) -> list[str]:
    """The ids that `farmhand list` lists."""
    return [task["id"] for task in (await said(workstation, "list", *arguments))["tasks"]]


def one_line(done: Done, status: int, words: str) -> None:
    """It failed with one line."""
    assert (done.status, done.err.count("\n")) == (status, 1), done.err
    assert words in done.err


@pytest.fixture
async def filled(agent: Agent, api: MessagesApi) -> Agent:
    """Four tasks that have ended, the last of them failed."""
    await agent.run(id="cow-1", prompt="Name a COW, Zoë", labels={"yard": "west"}, batch="barn")
    await agent.run(id="cow-2", prompt="Name another", batch="barn", system="Be brief", max_tokens=77)
    await agent.run(id="hen-1", prompt="100% of the hens_", labels={"yard": "east"})
    api.fault(Fault(kind="status", status=400, message="no such thing"))
    assert (await agent.run(id="hen-2", prompt="fails"))["state"] == "failed"
    return agent


async def test_lists_are_filtered_and_the_newest_comes_first(
    workstation: Workstation, farm: Sshd, filled: Agent
) -> None:
    everything = ["hen-2", "hen-1", "cow-2", "cow-1"]
    for arguments, wanted in (
        ([], everything),
        (["--failed"], ["hen-2"]),
        (["--batch", "barn"], ["cow-2", "cow-1"]),
        (["--label", "yard=east"], ["hen-1"]),
        (["--label", "yard=east", "--batch", "barn"], []),
        (["--grep", "zoË"], ["cow-1"]),
        (["--grep", "0% of"], ["hen-1"]),
        (["--grep", "%"], ["hen-1"]),
        (["--since", "2d"], everything),
        (["-n", "2"], everything[:2]),
    ):
        assert await ids(workstation, *arguments) == wanted, arguments
    lines = (await workstation.run("farmhand", "list", "-n", "1")).out.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("hen-2 ")
    for part in ("failed", "farm1", "fails"):
        assert part in lines[0]
    one_line(await workstation.run("farmhand", "list", "--label", "yard"), 2, "not of the form NAME=VALUE")
    one_line(await workstation.run("farmhand", "list", "--since", "soon"), 2, "not a day")


async def test_one_task_by_the_beginning_of_its_id(workstation: Workstation, farm: Sshd, filled: Agent) -> None:
    shown = (await said(workstation, "show", "cow-2"))["task"]
    assert shown["spec"] == {
        "id": "cow-2", "prompt": "Name another", "batch": "barn", "system": "Be brief", "max_tokens": 77,
    }  # fmt: skip
    assert (shown["host"], shown["state"], shown["content"]) == ("farm1", "succeeded", "kept")
    assert shown["text"]
    assert (await said(workstation, "show", "hen-1"))["task"]["spec"]["labels"] == {"yard": "east"}
    assert (await said(workstation, "show", "cow-1"))["task"]["id"] == "cow-1"
    assert (await said(workstation, "show"))["task"]["id"] == "hen-2"
    text = (await workstation.run("farmhand", "show", "hen-2")).out.decode()
    assert "no such thing" in text
    assert "prompt:\nfails" in text
    one_line(await workstation.run("farmhand", "show", "cow"), 2, "begins the ids of several tasks: cow-")
    one_line(await workstation.run("farmhand", "show", "dog"), 2, "no task 'dog'")
    one_line(await workstation.run("farmhand", "show", "../x"), 2, "no task '../x'")
    assert (await workstation.run("farmhand", "logs", "cow-1")).out.decode().strip() == (
        (await said(workstation, "show", "cow-1"))["task"]["text"].strip()
    )
    for words in (["logs"], ["logs", "-f"], ["wait"]):
        one_line(await workstation.run("farmhand", *words, "hen-2"), 1, "no such thing")
    for verb in ("wait", "cancel", "again", "logs"):
        one_line(await workstation.run("farmhand", verb, "dog"), 2, "no task 'dog'")
        one_line(await workstation.run("farmhand", verb, ""), 2, "the id is empty")
    one_line(await workstation.run("farmhand", "show", "\udcff"), 2, "the id is not valid UTF-8")


async def test_a_host_that_is_down_is_answered_for_by_the_copy_which_says_how_old_it_is(
    workstation: Workstation, farm: Sshd, filled: Agent
) -> None:
    done = await workstation.run("farmhand", "list")
    assert (done.status, done.err) == (0, "")
    copy = workstation.home / ".local/state/farmhand/history.db"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert DEFAULT_KEY.encode() not in copy.read_bytes()
    workstation.write_hosts(farm1=down(farm))
    later = await workstation.run("farmhand", "list")
    assert (later.status, later.out) == (0, done.out)
    assert later.err.count("\n") == 1
    assert "Connection refused" in later.err
    assert "what is shown of farm1 is from 2" in later.err
    listed = await said(workstation, "list")
    assert listed["hosts"]["farm1"]["copied_at"] > 0
    assert listed["hosts"]["farm1"]["error"]["code"] == "unreachable"
    shown = await workstation.run("farmhand", "show", "cow-1")
    assert b"Name a COW" in shown.out
    one_line(await workstation.run("farmhand", "show", "dog"), 4, "not every host could be asked")
    one_line(await workstation.run("farmhand", "again", "cow-1", "--fallback", "none"), 4, "Connection refused")
    # Another hosts file has other hosts, though they have the same names.
    (workstation.home / "other.json").write_text(json.dumps({"hosts": {"farm1": down(farm)}}))
    workstation.environment["FARMHAND_HOSTS_FILE"] = str(workstation.home / "other.json")
    one_line(await workstation.run("farmhand", "list"), 4, "Connection refused")


async def test_the_tasks_of_two_hosts_are_one_list(
    workstation: Workstation, farm: Sshd, filled: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    other = ForkedAgent(tmp_path / "second", api.url)
    await other.start()
    server = serve(tmp_path / "sshd2", bridge_to(other.socket))
    try:
        await other.run(id="dog", prompt="bark")
        workstation.write_hosts(farm1=entry(farm), farm2=entry(server))
        assert await ids(workstation) == ["dog", "hen-2", "hen-1", "cow-2", "cow-1"]
        assert (await said(workstation, "show", "d"))["task"]["host"] == "farm2"
        # A host that is built anew has another ledger; what its last one had stays listed.
        await other.stop()
        for path in (tmp_path / "second" / "state").glob("ledger.db*"):
            path.unlink()
        await other.start()
        await other.run(id="cat", prompt="purr")
        assert (await ids(workstation))[:2] == ["cat", "dog"]
    finally:
        server.stop()
        await other.stop()


async def test_a_task_that_runs_is_followed_waited_for_and_cancelled(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi
) -> None:
    api.state.event_s = 0.4
    await agent.submit({"id": "long-1", "prompt": "one two three four five six seven eight"})
    await agent_knows(agent, "long-1")
    waiting = await workstation.start("farmhand", "wait", "long-1", "--json")
    following = await workstation.start("farmhand", "logs", "-f", "long-1")
    out, err = await asyncio.wait_for(waiting.communicate(), 120)
    assert (waiting.returncode, err) == (0, b"")
    [result] = json.loads(out)["tasks"]
    assert (result["id"], result["state"]) == ("long-1", "succeeded")
    out, err = await asyncio.wait_for(following.communicate(), 120)
    assert (following.returncode, out.decode().strip(), err) == (0, result["text"].strip(), b"")

    api.state.event_s = 5.0
    await agent.submit({"id": "long-2", "prompt": "never"})
    await agent_knows(agent, "long-2")
    following = await workstation.start("farmhand", "logs", "-f")
    waiting = await workstation.start("farmhand", "wait", "long-1", "long-2")
    assert waiting.stdout is not None
    assert await asyncio.wait_for(waiting.stdout.readline(), 120) == b"long-1 succeeded\n"
    assert (await said(workstation, "list"))["tasks"][0]["state"] == "running"
    os.kill(following.pid, signal.SIGINT)
    _, err = await asyncio.wait_for(following.communicate(), 120)
    assert following.returncode == 130
    done = await workstation.run("farmhand", "cancel", "long-2", "long-1")
    assert (done.status, done.out) == (0, b"long-2 cancelled\nlong-1 had ended: succeeded\n")
    out, err = await asyncio.wait_for(waiting.communicate(), 120)
    assert (waiting.returncode, out, err.count(b"\n")) == (1, b"long-2 cancelled\n", 1)
    assert b"the task was cancelled" in err
    again = await said(workstation, "cancel", "long-2")
    assert again["tasks"] == [{"id": "long-2", "state": "cancelled"}]


async def test_a_task_without_a_key_is_told_and_not_waited_for_for_ever(
    workstation: Workstation, farm: Sshd, agent: Agent
) -> None:
    await agent.submit({"id": "keyless", "prompt": "x"}, key={})
    one_line(await workstation.run("farmhand", "wait", "keyless"), 3, "waits for a key")
    assert (await workstation.run("farmhand", "logs", "keyless")).err.strip().endswith("is awaiting_key")


async def test_the_same_task_again_with_changed_options(
    workstation: Workstation, farm: Sshd, filled: Agent, api: MessagesApi
) -> None:
    (workstation.config_dir / "config.toml").write_text('model = "opus"\n')
    done = await workstation.run("farmhand", "again", "cow-2", "--json")
    result = json.loads(done.out)
    assert (done.status, result["state"], result["batch"]) == (0, "succeeded", "")
    assert result["id"] != "cow-2"
    assert received(api)[-1] == "Name another"
    body = json.loads(api.posts[-1].body)
    assert (body["system"], body["max_tokens"], body["model"]) == ("Be brief", 77, "claude-haiku-5-5")
    one_line(await workstation.run("farmhand", "again", "cow-2", "--id", "cow-2"), 2, "the id of that task itself")
    changed = ["--model", "sonnet", "--max-tokens", "9", "--id", "mine"]
    changed += ["--label", "yard=north", "--work-class", "milk", "--priority", "2", "--max-usd", "1"]
    done = await workstation.run("farmhand", "again", "cow-2", *changed)
    assert done.status == 0, done.err
    body = json.loads(api.posts[-1].body)
    assert (body["system"], body["max_tokens"], body["model"]) == ("Be brief", 9, "claude-sonnet-5-5")
    spec = (await said(workstation, "show", "mine"))["task"]["spec"]
    assert (spec["prompt"], spec["labels"], spec["work_class"]) == ("Name another", {"yard": "north"}, "milk")
    assert (spec["priority"], float(spec["max_usd"])) == (2, 1.0)
    done = await workstation.run("farmhand", "again", "mine", "--max-usd", "0.0000001")
    one_line(done, 5, "has no room")


async def test_a_task_whose_files_are_not_kept_is_not_run_again_without_them(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path
) -> None:
    (tmp_path / "bone.png").write_bytes(png(30, 30))
    asked = await workstation.run("claude-cheap", "--id", "bone", "-f", str(tmp_path / "bone.png"), "dig " * 5000)
    assert asked.status == 0, asked.err
    done = await workstation.run("farmhand", "again", "bone")
    assert (done.status, done.err) == (
        2,
        "farmhand: the files and earlier turns of task bone are not kept"
        " (give them again: claude-cheap -f …, or --conversation NAME)\n",
    )
    assert len(api.posts) == 1


async def test_a_long_task_is_cut_in_the_copy_and_whole_from_its_host(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi
) -> None:
    prompt = "word " * 10_000
    await agent.run(id="long", prompt=prompt)
    assert (await said(workstation, "show", "long"))["task"]["spec"]["prompt"] == prompt
    assert (await workstation.run("farmhand", "again", "long")).status == 0
    assert received(api) == [prompt, prompt]
    workstation.write_hosts(farm1=down(farm))
    done = await workstation.run("farmhand", "show", "long")
    assert done.status == 0
    assert "cut here; farm1 has all of them" in done.err
    one_line(await workstation.run("farmhand", "again", "long"), 4, "only farm1 has the whole task long")


async def test_what_the_agent_has_deleted_is_gone_here_too(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi
) -> None:
    await agent.run(id="old", prompt="the secret of the barn")
    assert await ids(workstation) == ["old"]
    copy = workstation.home / ".local/state/farmhand/history.db"
    assert b"secret of the barn" in copy.read_bytes()
    await agent.stop()
    agent.config.write_text(agent.config.read_text() + "retention_days = 0.00001\n")
    await agent.start()
    for _ in range(2400):
        if (await agent.call("GET", "/v1/tasks/old"))[0] == 410:
            break
        await asyncio.sleep(0.05)
    [task] = (await said(workstation, "list"))["tasks"]
    assert (task["id"], task["prompt"], task["content"]) == ("old", None, "gone")
    assert b"secret of the barn" not in copy.read_bytes()
    done = await workstation.run("farmhand", "show", "old")
    assert done.status == 0
    assert "are gone: farm1 keeps them for 1e-05 days at the most" in done.err
    for verb in ("logs", "again"):
        one_line(await workstation.run("farmhand", verb, "old"), 2, "keeps them for")


async def test_a_copy_that_cannot_be_written_is_told_and_the_host_answers(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi
) -> None:
    state = workstation.home / ".local/state/farmhand"
    state.mkdir(parents=True, exist_ok=True)
    (state / "history.db").symlink_to("/nowhere")  # as good as a full disk: root may write where nobody else may
    api.state.event_s = 5.0
    await agent.submit({"id": "dear", "prompt": "a long story"})
    await agent_knows(agent, "dear")
    done = await workstation.run("farmhand", "list")
    assert (done.status, done.out.split()[0], done.err.count("\n")) == (0, b"dear", 1), done.err
    assert "history.db cannot be used" in done.err
    assert (await workstation.run("farmhand", "cancel", "dear")).status == 0
    assert (await said(workstation, "show", "dear"))["task"]["state"] == "cancelled"


async def test_an_agent_without_a_history_is_named(
    workstation: Workstation, farm: Sshd, agent: Agent, tmp_path: Path
) -> None:
    old = tmp_path / "old_agent.py"
    old.write_text(
        "import json, sys\n"
        "while line := sys.stdin.buffer.readline():\n"
        "    path = line.split()[1]\n"
        "    while sys.stdin.buffer.readline().strip():\n        pass\n"
        "    status, body = (200, {}) if path == b'/v1/status' else"
        " (404, {'error': {'code': 'no_such_route', 'message': 'no'}})\n"
        "    data = json.dumps(body).encode()\n"
        "    head = f'HTTP/1.1 {status} X\\r\\nX-Farmhand-Wire: 1\\r\\nContent-Length: {len(data)}\\r\\n\\r\\n'\n"
        "    sys.stdout.buffer.write(head.encode() + data)\n    sys.stdout.buffer.flush()\n"
    )
    farm.authorize(farm.identity.with_suffix(".pub").read_text().strip(), f"python3 {old}")
    one_line(
        await workstation.run("farmhand", "list"), 4, "the agent is too old for its history (upgrade: farmhand up)"
    )


async def test_the_last_answer_again(workstation: Workstation, farm: Sshd, api: MessagesApi) -> None:
    one_line(await workstation.run("claude-cheap", "--last"), 2, "there is no last answer here")
    first = await workstation.run("claude-cheap", "--json", "hello")
    api.fault(Fault(kind="status", status=400, message="no"))
    assert (await workstation.run("claude-cheap", "fails")).status == 1
    workstation.write_hosts(farm1=down(farm))
    again = await workstation.run("claude-cheap", "--last")
    assert (again.status, again.err) == (0, "")
    assert again.out.decode().strip() == json.loads(first.out)["text"].strip()
    assert (await workstation.run("claude-cheap", "--last", "--json")).out == first.out
    kept = workstation.home / ".local/state/farmhand/last.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    one_line(await workstation.run("claude-cheap", "--last", "x"), 2, "leave one out")
    code = await workstation.run("claude-cheap", "--last", "--extract")
    assert (code.status, code.out) == (0, again.out)
    assert "the answer has no block of code" in code.err
    os.utime(kept, (0, 0))
    one_line(await workstation.run("claude-cheap", "--last"), 2, "kept for 30 days")
    assert not kept.exists()


@pytest.mark.parametrize("columns", [50, 24])
async def test_a_list_is_no_wider_than_the_terminal(
    workstation: Workstation, farm: Sshd, filled: Agent, tmp_path: Path, columns: int
) -> None:
    argv = [str(BIN / "farmhand"), "list"]
    with screen(tmp_path, argv, workstation.environment, columns=columns) as terminal:
        lines = await terminal.until("[0]")
    assert [line.split()[0] for line in lines] == ["hen-2", "hen-1", "cow-2", "cow-1", "[0]"]
