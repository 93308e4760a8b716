"""claude-cheap over a real sshd to the real daemon."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from pathlib import Path

import pytest

from tests.integration.dispatch.conftest import BIN, Workstation, agent_knows, entry, received
from tests.integration.dispatch.sshd import Sshd, free_port, keygen
from tests.support.agent import Agent
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi


@pytest.mark.parametrize(
    "prompt",
    [
        "a; id",
        "$(id)",
        "`id`",
        "two\nlines\n",
        "'single' \"double\"",
        "@/etc/passwd",
        "/help",
        "--help",
        "-",
        "😀 é\t",
        "{{ 1 }}",
    ],
)
async def test_a_prompt_reaches_the_api_as_it_is(
    workstation: Workstation, farm: Sshd, api: MessagesApi, prompt: str
) -> None:
    piped = await workstation.run("claude-cheap", "--", "-", stdin=prompt.encode())
    assert piped.status == 0, piped.err
    prompts = [prompt]
    if prompt != "-":
        given = await workstation.run("claude-cheap", "--", prompt)
        assert given.out == piped.out
        prompts.append(prompt)
    assert received(api) == prompts
    assert hashlib.sha256(prompt.encode()).hexdigest()[:12].encode() in piped.out
    assert piped.err == ""
    assert piped.out.endswith(b"\n")


async def test_argument_stdin_and_files_in_their_order(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("in the file\n")
    done = await workstation.run("claude-cheap", "first", "-f", f"{tmp_path}/notes.txt", stdin=b"piped\n")
    assert done.status == 0, done.err
    assert received(api) == [f"first\n\npiped\n\n\n----- file: {tmp_path}/notes.txt -----\nin the file\n"]


async def test_a_megabyte_goes_through(workstation: Workstation, farm: Sshd, api: MessagesApi) -> None:
    prompt = "word " * 210_000
    done = await workstation.run("claude-cheap", stdin=prompt.encode())
    assert done.status == 0, done.err
    assert received(api) == [prompt]


async def test_json_is_the_whole_result(workstation: Workstation, farm: Sshd) -> None:
    done = await workstation.run("claude-cheap", "--json", "--id", "mine", "hello")
    result = json.loads(done.out)
    assert (result["id"], result["state"], result["engine"]) == ("mine", "succeeded", "api")
    assert result["usage"]["output_tokens"] > 0
    again = await workstation.run("claude-cheap", "--json", "--id", "mine", "hello")
    assert json.loads(again.out) == result
    other = await workstation.run("claude-cheap", "--json", "--id", "mine", "other")
    assert other.status == 2
    assert json.loads(other.out)["error"]["code"] == "id_conflict"


async def test_each_part_comes_before_the_result(workstation: Workstation, farm: Sshd, api: MessagesApi) -> None:
    api.state.event_s = 0.3  # of what has ended there is the result only
    # Each line is checked beside docs/schemas as it is read.
    *events, last = (await workstation.run("claude-cheap", "--json", "--events", "hello")).out.splitlines()
    assert "".join(json.loads(event)["text"] for event in events) == json.loads(last)["text"]
    assert events


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "words"),
    [
        (["  "], None, 2, "the prompt is empty"),
        ([], b"", 2, "the prompt is empty"),
        ([], b"a\0b", 2, "NUL byte at 1"),
        ([], b"ab\xff", 2, "not valid UTF-8 at byte 2"),
        ([b"\xff".decode(errors="surrogateescape")], None, 2, "not valid UTF-8"),
        (["--system", "\udcff", "x"], None, 2, "--system is not valid UTF-8"),
        (["--id", "\udcff", "x"], None, 2, "--id is not valid UTF-8"),
        (["--schema", '{"enum": ["\\ud800"]}', "x"], None, 2, "--schema is not valid UTF-8"),
        (["--nope", "x"], None, 2, "No such option"),
        (["a", "b"], None, 2, "quote the prompt"),
        (["--engine", "gpu", "x"], None, 2, "'gpu' is not one of"),
        (["--schema", '{"type": "nothing"}', "x"], None, 2, "not a JSON Schema"),
        (["--schema", "{", "x"], None, 2, "not JSON"),
        (["--schema", "/nowhere.json", "x"], None, 2, "No such file"),
        (["-f", "/nowhere.txt", "x"], None, 2, "No such file"),
        (["-f", "/bin/sh", "x"], None, 2, "binary"),
        (["--tools", "Hack", "x"], None, 2, "unknown tool Hack"),
        (["--model", "nothing", "x"], None, 2, "unknown model"),
        (["--model", "claude-nothing-1", "x"], None, 1, "does not know the model"),
        (["--host", "other", "x"], None, 3, "known: farm1"),
        (["--key-source", "env:NOT_SET", "x"], None, 3, "NOT_SET is not set"),
        (["--config", "/nowhere.toml", "x"], None, 3, "/nowhere.toml does not exist"),
        (["--network", "full", "--tools", "Bash", "x"], None, 5, "does not allow network: full"),
    ],
)
async def test_bad_input_is_one_line_with_the_right_status(
    workstation: Workstation, farm: Sshd, arguments: list[str], stdin: bytes | None, status: int, words: str
) -> None:
    done = await workstation.run("claude-cheap", *arguments, stdin=stdin)
    assert done.status == status, done.err
    assert done.out == b""
    assert words in done.err
    assert done.err.startswith("claude-cheap: ")
    assert done.err.count("\n") == 1
    assert DEFAULT_KEY not in done.err


async def test_an_answer_that_nobody_takes(workstation: Workstation, farm: Sshd) -> None:
    cheap = BIN / "claude-cheap"
    for shell, status, words in (
        (f"{cheap} x > /dev/full", 1, "No space left"),
        (f"{cheap} x >&-", 2, "stdout is closed"),
        (f"set -o pipefail; {cheap} x | true", 141, ""),
    ):
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            shell,
            env=workstation.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == status, err
        assert words in err.decode()
        assert err.count(b"\n") == (1 if words else 0)


async def test_a_key_file_that_others_can_read(workstation: Workstation, farm: Sshd) -> None:
    (workstation.home / "repos.env").chmod(0o640)
    done = await workstation.run("claude-cheap", "x")
    assert (done.status, done.err.count("\n")) == (3, 1)
    assert "mode 0640" in done.err


@pytest.mark.parametrize("where", ["file", "stdin", "system"])
async def test_a_task_that_holds_the_key_is_not_sent(
    workstation: Workstation, farm: Sshd, api: MessagesApi, where: str
) -> None:
    source = workstation.home / "repos.env"
    given = {
        "file": ["-f", str(source), "what is this?"],
        "stdin": ["what is this?"],
        "system": ["--system", f"use {DEFAULT_KEY} ", "hello"],
    }
    done = await workstation.run("claude-cheap", *given[where], stdin=source.read_bytes() if where == "stdin" else None)
    assert (done.status, done.out, done.err.count("\n")) == (2, b"", 1)
    assert "the API key itself" in done.err
    assert DEFAULT_KEY not in done.err
    assert not api.posts


async def test_a_key_that_the_api_does_not_know(workstation: Workstation, farm: Sshd) -> None:
    workstation.environment["K"] = "sk-ant-test-unknown-000000000"
    done = await workstation.run("claude-cheap", "--key-source", "env:K", "x")
    assert (done.status, done.err.count("\n")) == (3, 1)
    assert "sk-ant-test" not in done.err


async def test_an_unknown_host_key_is_never_accepted(workstation: Workstation, farm: Sshd) -> None:
    farm.known_hosts.write_text("")
    done = await workstation.run("claude-cheap", "x")
    assert (done.status, done.err.count("\n")) == (4, 1)
    assert "the host key is unknown" in done.err
    assert farm.known_hosts.read_text() == ""


async def test_a_changed_host_key_is_refused(workstation: Workstation, farm: Sshd, tmp_path: Path) -> None:
    farm.trust(keygen(tmp_path / "another"))
    done = await workstation.run("claude-cheap", "x")
    assert (done.status, done.err.count("\n")) == (4, 1)
    assert "not the one on record" in done.err


async def test_a_wrong_dispatch_key(workstation: Workstation, farm: Sshd, tmp_path: Path) -> None:
    keygen(tmp_path / "stranger")
    workstation.write_hosts(farm1=entry(farm) | {"identity_file": str(tmp_path / "stranger")})
    done = await workstation.run("claude-cheap", "x")
    assert (done.status, done.err.count("\n")) == (4, 1)
    assert "not accepted" in done.err


async def test_a_host_without_the_agent_runs_nothing_of_the_wire(
    workstation: Workstation, farm: Sshd, tmp_path: Path
) -> None:
    farm.authorize(farm.identity.with_suffix(".pub").read_text().strip(), "PATH=/nowhere; $SSH_ORIGINAL_COMMAND")
    done = await workstation.run("claude-cheap", f"\ntouch {tmp_path}/ran\n")
    assert (done.status, done.err.count("\n")) == (4, 1)
    assert "jada-agent is not installed" in done.err
    assert not (tmp_path / "ran").exists()


async def test_an_agent_that_is_down(workstation: Workstation, farm: Sshd, agent: Agent) -> None:
    await agent.stop()
    done = await workstation.run("claude-cheap", "x")
    assert (done.status, done.err.count("\n")) == (4, 1)
    assert "systemctl status jada-agent" in done.err


async def test_a_closed_port_and_a_mute_one(workstation: Workstation, farm: Sshd) -> None:
    workstation.write_hosts(farm1=entry(farm) | {"port": free_port()})
    closed = await workstation.run("claude-cheap", "x")
    assert (closed.status, closed.err.count("\n")) == (4, 1)
    assert "Connection refused" in closed.err
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        workstation.write_hosts(farm1=entry(farm) | {"port": port})
        started = asyncio.get_running_loop().time()
        mute = await workstation.run("claude-cheap", "--connect-timeout", "1", "x")
        took = asyncio.get_running_loop().time() - started
    assert (mute.status, mute.err.count("\n")) == (4, 1)
    assert took < 4.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_cancels_the_task_on_the_host(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi, number: signal.Signals
) -> None:
    api.state.event_s = 5.0
    process = await workstation.start("claude-cheap", "--id", "slow", "hello")
    await agent_knows(agent, "slow")
    os.kill(process.pid, number)
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 128 + number
    assert (out, err) == (b"", b"claude-cheap: task cancelled\n")
    assert (await agent.get("/v1/tasks/slow"))["task"]["state"] == "cancelled"


async def test_a_lost_connection_is_resumed(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi
) -> None:
    api.state.event_s = 0.3
    process = await workstation.start("claude-cheap", "--id", "long", "hello")
    await agent_knows(agent, "long")
    farm.drop_connections()
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err
    assert b"hello" in out
    assert len(received(api)) == 1


async def test_a_stale_shared_connection_is_replaced(workstation: Workstation, farm: Sshd, api: MessagesApi) -> None:
    assert (await workstation.run("claude-cheap", "warm")).status == 0
    # Stopped, the process that serves the shared connection is as mute as after a suspend.
    farm.drop_connections(signal.SIGSTOP)
    done = await workstation.run("claude-cheap", "--connect-timeout", "5", "hello")
    assert done.status == 0, done.err
    assert received(api) == ["warm", "hello"]


async def test_calls_share_one_connection(workstation: Workstation, farm: Sshd) -> None:
    assert (await workstation.run("claude-cheap", "one")).status == 0
    shared = list(Path(workstation.environment["XDG_RUNTIME_DIR"]).glob("farmhand/cm-*"))
    assert len(shared) == 1
    farm.authorize("", "")  # no new login is possible any more
    assert (await workstation.run("claude-cheap", "two")).status == 0


async def test_an_agent_that_restarts_in_between_gets_the_key_again(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi
) -> None:
    api.state.event_s = 0.3
    process = await workstation.start("claude-cheap", "--id", "long", "hello")
    await agent_knows(agent, "long")
    await agent.stop(signal.SIGKILL)
    agent.socket.unlink(missing_ok=True)
    await agent.start()
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err
    assert b"hello" in out


async def test_status(workstation: Workstation, farm: Sshd) -> None:
    done = await workstation.run("farmhand", "status", "--json")
    assert json.loads(done.out)["hosts"]["farm1"]["state"] == "running"
    workstation.write_hosts(farm1=entry(farm), farm2=entry(farm) | {"port": free_port()})
    both = await workstation.run("farmhand", "status")
    assert both.status == 4
    assert b"farm1" in both.out
    assert both.err.startswith("farm2: ")


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(kind="status", status=401, message="invalid x-api-key"), 3),
        (Fault(kind="status", status=402, message="no credit"), 5),
        (Fault(kind="spend_limit", message="the limit is reached"), 5),
    ],
    ids=["401", "402", "spend_limit"],
)
async def test_a_refused_key_is_one_line_and_leaves_no_task_behind(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi, fault: Fault, status: int
) -> None:
    api.fault(fault)
    done = await workstation.run("claude-cheap", "hello")
    assert (done.status, done.out) == (status, b"")
    assert len(done.err.splitlines()) == 1
    assert f"the API refused the key: {fault.message}" in done.err
    counts = await agent.get("/v1/status")
    assert (counts["finished"]["cancelled"], counts["awaiting_key"]) == (1, 0)
    assert len(api.posts) == 1
    # The same key is tried again with the next call.
    assert (await workstation.run("claude-cheap", "hello")).status == 0
