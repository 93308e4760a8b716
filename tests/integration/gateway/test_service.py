"""The gateway as a service: start, reload, drain, its verbs; and that nothing secret is where it could be read."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.local_server import END, LLAMA, SSE, LocalServerPlay, delta, until

TURN = {"model": "farmhand/chat", "max_tokens": 9, "messages": [{"role": "user", "content": "CANARY-PROMPT"}]}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(tmp_path) as made:
        yield made


async def answer(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
    """Say something, streamed or not."""
    if b'"stream":true' in local.turns[-1]:
        writer.write(SSE + delta("CANARY-ANSWER") + END)
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": "CANARY-ANSWER"}, "finish_reason": "stop"}
        text = json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
    await writer.drain()


async def test_a_taken_port_is_one_line_and_exit_3(gateway: GatewayProcess, tmp_path: Path) -> None:
    await gateway.start()
    status, out, err = await gateway.command("serve")
    assert (status, out) == (3, "")
    [line] = err.splitlines()
    assert f"127.0.0.1:{gateway.port}" in line
    assert (await gateway.call("GET", "/health"))[0] == 200


@pytest.mark.parametrize(
    ("settings", "status", "words"),
    [("nonsense = 1", 3, "nonsense"), ("[local.x]\nurl = 7", 3, "url"), ('auth = "x"\n[', 3, "not TOML")],
)
async def test_wrong_settings_are_one_line(gateway: GatewayProcess, settings: str, status: int, words: str) -> None:
    gateway.write(settings)
    found, _, err = await gateway.command("serve")
    [line] = err.splitlines()
    assert (found, words in line) == (status, True), line


async def test_a_reload_swaps_whole_or_not_at_all(gateway: GatewayProcess) -> None:
    async with LocalServerPlay(LLAMA, answer).serve() as local:
        await gateway.start()
        assert (await gateway.call("POST", "/v1/messages", TURN))[0] == 402
        gateway.write(f'[local.one]\nurl = "{local.url}"\n[local.bad]\nurl = "ftp://x"\n')
        status, _, err = await gateway.command("reload")
        assert (status, "bad" in err) == (3, True), err
        assert [state["name"] for state in (await gateway.status())["states"]] == ["subscription", "metered"]
        gateway.write(f'[local.one]\nurl = "{local.url}"\n')
        gateway.hang_up()
        await until(lambda: "again" in gateway.log.read_text())
        await gateway.until_up("local:one")
        assert (await gateway.call("POST", "/v1/messages", TURN))[0] == 200
        gateway.write("[[[")
        gateway.hang_up()
        await until(lambda: "old settings stay" in gateway.log.read_text())
        assert (await gateway.call("POST", "/v1/messages", TURN))[0] == 200
        gateway.write("")
        assert (await gateway.command("reload"))[0] == 0
        assert (await gateway.call("POST", "/v1/messages", TURN))[0] == 402


async def test_gateway_env_is_read_alike_however_it_was_started(gateway: GatewayProcess) -> None:
    async with LocalServerPlay(LLAMA, answer).serve() as local:
        gateway.write(f'[local.one]\nurl = "{local.url}"\nauth_env = "A_KEY"\n')
        status, _, err = await gateway.command("serve")
        assert (status, "A_KEY is not set" in err) == (3, True), err
        file = gateway.config.with_name("gateway.env")
        file.write_text("# keys\nexport A_KEY='sk-ant-test-CANARY' # of one\n")
        file.chmod(0o640)
        status, _, err = await gateway.command("serve")
        assert (status, len(err.splitlines()), f"chmod 600 {file}" in err) == (3, 1, True), err
        file.chmod(0o600)
        # As systemd would have read it.
        gateway.environ["A_KEY"] = "'sk-ant-test-CANARY' # of one"
        await gateway.start()
        await gateway.until_up("local:one")
        assert "sk-ant-test-CANARY" in {head.get("authorization", "").removeprefix("Bearer ") for head in local.heads}
        file.write_text("A_KEY=$(id)\n")
        status, _, err = await gateway.command("serve")
        assert (status, len(err.splitlines()), "line 1" in err) == (3, 1, True), err


async def test_a_running_turn_ends_before_the_gateway_does(gateway: GatewayProcess) -> None:
    go = asyncio.Event()

    async def play(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + delta("one"))
        await go.wait()
        writer.write(delta("two") + END)
        await writer.drain()

    async with LocalServerPlay(LLAMA, play).serve() as local:
        gateway.write(f'[local.one]\nurl = "{local.url}"\n')
        await gateway.start()
        await gateway.until_up("local:one")
        running = asyncio.create_task(gateway.call("POST", "/v1/messages", TURN | {"stream": True}))
        await until(lambda: bool(local.turns))
        ending = asyncio.create_task(gateway.stop())
        await until(lambda: "stopping; 1 turn is open" in gateway.log.read_text())
        go.set()
        status, _, text = await running
        assert (status, "two" in text, "message_stop" in text) == (200, True, True)
        assert await ending == 0


async def test_a_rotated_token_is_the_only_one_at_once(gateway: GatewayProcess) -> None:
    await gateway.start()
    old = {"authorization": f"Bearer {gateway.token}"}
    assert stat.S_IMODE(gateway.token_path.stat().st_mode) == 0o600
    status, new, _ = await gateway.command("token", "--rotate")
    assert (status, new.strip()) == (0, gateway.token)
    assert (await gateway.call("GET", "/v1/models", headers=old))[0] == 401
    assert (await gateway.call("GET", "/v1/models"))[0] == 200


@pytest.mark.parametrize(("text", "mode"), [("", 0o600), ("fhg-test-0123456789-0123456789-0123456789\n", 0o644)])
async def test_a_token_that_is_none_or_was_seen_can_be_rotated(gateway: GatewayProcess, text: str, mode: int) -> None:
    gateway.token_path.parent.mkdir(parents=True)
    gateway.token_path.write_text(text)
    gateway.token_path.chmod(mode)
    assert (await gateway.command("token"))[0] == 3
    status, new, err = await gateway.command("token", "--rotate")
    assert (status, new.strip(), "no gateway runs" in err) == (0, gateway.token, True)
    assert stat.S_IMODE(gateway.token_path.stat().st_mode) == 0o600


async def test_a_gateway_that_keeps_the_old_token_is_said(gateway: GatewayProcess) -> None:
    await gateway.start()
    old = {"authorization": f"Bearer {gateway.token}"}
    gateway.write('[local.one]\nurl = "http://127.0.0.1:1"\nauth_env = "NOT_SET"\n')
    status, new, err = await gateway.command("token", "--rotate")
    assert (status, new.strip()) == (0, gateway.token)
    assert "keeps the old token" in err
    assert "NOT_SET is not set" in err
    assert (await gateway.call("GET", "/v1/models", headers=old))[0] == 200


async def test_the_verbs_without_a_gateway_say_so(gateway: GatewayProcess) -> None:
    assert (await gateway.command("token"))[0] == 0
    for verb in ("status", "reload"):
        status, _, err = await gateway.command(verb)
        assert (status, len(err.splitlines())) == (4, 1)
        assert "farmhand gateway serve" in err
    status, _, err = await gateway.command("status", "--gateway-config", str(gateway.home / "none.toml"))
    assert (status, len(err.splitlines()), "none.toml does not exist" in err) == (3, 1, True)
    status, out, _ = await gateway.command("explain", "--class", "agent", "--tools", "12", "--tokens", "40000")
    assert (status, "advice" in out) == (0, True)
    status, _, err = await gateway.command("explain", "fh-0123456789")
    assert (status, len(err.splitlines())) == (3, 1)


@pytest.mark.parametrize("client", ["claude", "pi", "codex", "opencode", "aider", "llm", "continue"])
async def test_a_recipe_names_port_and_token_source_but_no_token(gateway: GatewayProcess, client: str) -> None:
    await gateway.command("token")
    before = sorted(gateway.home.rglob("*"))
    status, out, _ = await gateway.command("connect", client)
    assert status == 0
    assert gateway.url in out
    assert "farmhand gateway token" in out or "FARMHAND_GATEWAY_TOKEN" in out
    assert gateway.token not in out
    assert sorted(gateway.home.rglob("*")) == before  # nothing is edited


async def test_a_recipe_is_of_a_local_server_also_where_turns_can_be_paid_for(gateway: GatewayProcess) -> None:
    gateway.environ["FARMHAND_GATEWAY_KEY"] = "sk-ant-api03-test-0123456789-0123456789-0123456789"
    gateway.write('[metered]\nenabled = true\nbudget_day_usd = "1"\n')
    await gateway.start()
    assert (await gateway.status())["states"][0]["closed"] is None
    status, out, err = await gateway.command("connect", "codex")
    assert (status, "is a guess" in err, "view_image = false" in out) == (0, True, True)


async def test_a_recipe_finds_the_token_from_any_directory(gateway: GatewayProcess) -> None:
    (other := gateway.home / "my settings").mkdir()
    file = gateway.config.rename(other / "gateway.toml")
    _, token, _ = await gateway.command("token", "--gateway-config", str(file))
    status, out, _ = await gateway.command("connect", "aider", "--gateway-config", str(file))
    assert status == 0
    (line,) = [line for line in out.splitlines() if "OPENAI_API_KEY" in line]
    argv = shlex.split(line.partition("$(")[2].rpartition(")")[0])
    assert await gateway.farmhand(*argv[1:]) == (0, token, "")


async def test_token_and_prompt_are_in_no_log_ledger_metric_or_argument(gateway: GatewayProcess) -> None:
    async with LocalServerPlay(LLAMA, answer).serve() as local:
        gateway.write(f'[local.one]\nurl = "{local.url}"\n')
        await gateway.start()
        await gateway.until_up("local:one")
        key = {"x-api-key": "sk-ant-test-CANARY-KEY", "x-claude-code-session-id": "CANARY-SESSION"}
        said = [await gateway.call("POST", "/v1/messages", TURN | {"stream": on}, key) for on in (False, True)]
        assert all("CANARY-ANSWER" in str(text) for _, _, text in said)
        wrong = {"authorization": "Bearer CANARY-WRONG"}
        assert (await gateway.call("POST", "/v1/messages", TURN, wrong))[0] == 401
        assert (await gateway.call("POST", "/v1/messages", {"model": "CANARY-MODEL", "messages": 7}))[0] == 400
        refused = TURN | {"tools": [{"type": "CANARY-TOOL", "name": "CANARY-NAME"}]}
        assert (await gateway.call("POST", "/v1/messages", refused))[0] == 400
        assert b"CANARY-KEY" not in b"".join(local.turns)  # a client's key is not passed on
        control = {"X-Farmhand-Control": "1"}
        seen = {path: str(await gateway.call("GET", path, headers=control)) for path in ("/metrics", "/v1/models")}
        seen |= {
            path: str(await gateway.call("GET", f"/farmhand/v1/{path}", headers=control))
            for path in ("status", "decisions")
        }
        for verb in (["status"], ["explain"], ["explain", "--json"], ["reload"]):
            seen[str(verb)] = str(await gateway.command(*verb))
        seen["argv"] = Path(f"/proc/{gateway.pid}/cmdline").read_text()
        assert await gateway.stop() == 0
        token = gateway.token
        gateway.token_path.unlink()
        for path in gateway.home.rglob("*"):
            if path.is_file():
                seen[str(path)] = path.read_bytes().decode("latin-1")
        assert len(seen) > 10
        for where, text in seen.items():
            assert "CANARY" not in text, where
            assert token not in text, where


async def test_a_service_manager_hears_when_it_is_ready_and_when_it_stops(gateway: GatewayProcess) -> None:
    path = gateway.home / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(60)
        gateway.environ["NOTIFY_SOCKET"] = str(path)
        await gateway.start()
        assert manager.recv(1000).startswith(b"READY=1")
        assert await gateway.stop() == 0
        assert manager.recv(1000).startswith(b"STOPPING=1")


async def test_its_memory_is_private(gateway: GatewayProcess) -> None:
    await gateway.start()
    [line] = [one for one in Path(f"/proc/{gateway.pid}/limits").read_text().splitlines() if "core file" in one]
    assert line.split()[4:6] == ["0", "0"]  # the rest of keep_memory_private is tried in test_systemd.py
