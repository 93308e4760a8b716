"""farmhand doctor with a real daemon behind a real sshd, the real claude CLI and a made-up login."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.integration.dispatch.conftest import Workstation, entry
from tests.integration.dispatch.sshd import Sshd, free_port, keygen
from tests.integration.dispatch.test_subscription import TOKEN, log_in
from tests.support.agent import Agent
from tests.support.claude import claude_binary
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_KEY, MessagesApi

#: The search for keys on the hosts is Ansible's and looks at whole machines: tests/e2e has it.
DOCTOR = ("farmhand", "doctor", "--skip", "at-rest")


@pytest.fixture
async def agent(tmp_path: Path, api: MessagesApi) -> AsyncIterator[Agent]:
    """The daemon as it is on a farm host, where the CLI is installed."""
    daemon = ForkedAgent(tmp_path, api.url, idle_s=5.0, drain_s=5.0, claude_path=str(claude_binary()))
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest.fixture
async def station(workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path) -> Workstation:
    """A workstation where everything holds."""
    api.state.keys = frozenset({DEFAULT_KEY, TOKEN})
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "claude").write_text(f'#!/bin/sh\nexport ANTHROPIC_BASE_URL={api.url}\nexec {claude_binary()} "$@"\n')
    (directory / "claude").chmod(0o755)
    workstation.environment |= {
        "PATH": f"{directory}:{workstation.environment['PATH']}",
        "FARMHAND_UPSTREAM_URL": api.url,
        "SHELL": "/bin/bash",
    }
    log_in(workstation, refreshTokenExpiresAt=int((time.time() + 20.5 * 86400) * 1000))
    return workstation


async def examine(station: Workstation, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status, and the lines by `host name`."""
    done = await station.run(*DOCTOR, "--json", *arguments)
    told = json.loads(done.out)
    assert told["ok"] == (done.status == 0), done.err
    assert DEFAULT_KEY not in done.out.decode() + done.err
    assert TOKEN not in done.out.decode() + done.err
    return done.status, {f"{line['host']} {line['name']}".strip(): line for line in told["checks"]}


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file() and ".cache" not in path.parts
    }


async def test_all_green(station: Workstation, api: MessagesApi) -> None:
    before = snapshot(station.home)
    status, lines = await examine(station)
    assert [name for name, line in lines.items() if line["ok"] is False] == [], lines
    assert status == 0
    assert lines["login"]["detail"] == "plan max, 20 days left"
    assert lines["farm1 cli"]["detail"] == f"claude {claude_binary().parent.name}"
    assert lines["farm1 at-rest"]["ok"] is None
    assert "a task was answered" in lines["farm1 canary"]["detail"]
    assert lines["api"]["detail"].endswith("accepts the key, which is of wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ")
    # One task on the farm, which has the key; nothing on the login.
    assert [post.headers.get("x-api-key") for post in api.posts] == [DEFAULT_KEY]
    after = snapshot(station.home)
    # What the CLI itself notes when it is started is not ours.
    ours = {path for path in before | after if ".claude" not in path}
    assert {path: before.get(path) for path in ours} == {path: after.get(path) for path in ours}


async def test_the_screen(station: Workstation) -> None:
    done = await station.run(*DOCTOR, "--no-canary")
    assert done.status == 0, done.out.decode()
    screen = done.out.decode().splitlines()
    assert screen[-1] == "all green"
    assert len(screen) <= 24
    assert [line for line in screen if len(line) > 120] == []
    station.environment["ANTHROPIC_API_KEY"] = DEFAULT_KEY
    red = await station.run(*DOCTOR, "--no-canary")
    assert red.status == 1
    text = red.out.decode()
    assert "RED  environment" in text
    assert "fix: unset ANTHROPIC_API_KEY" in text
    assert DEFAULT_KEY not in text


async def test_claude_is_asked_only_on_request(station: Workstation, api: MessagesApi) -> None:
    status, lines = await examine(station, "--no-canary", "--ask-claude")
    assert status == 0, lines
    assert "answers on the plan" in lines["claude"]["detail"]
    assert [post.headers.get("Authorization") for post in api.posts] == [f"Bearer {TOKEN}"]


async def red(station: Workstation, name: str, words: str, fix: str, *arguments: str) -> None:
    """Exactly the line `name` is red, and says so."""
    status, lines = await examine(station, "--no-canary", *arguments)
    assert status == 1
    assert words in lines[name]["detail"], lines[name]
    assert fix in lines[name]["fix"], lines[name]
    reds = [each for each, line in lines.items() if line["ok"] is False]
    assert reds == [name], lines


async def test_login_red(station: Workstation) -> None:
    log_in(station, refreshTokenExpiresAt=1000)
    await red(station, "login", "ended on 1970-01-01", "/login")


async def test_key_red(station: Workstation, api: MessagesApi) -> None:
    api.state.keys = frozenset({TOKEN})
    await red(station, "api", "does not know the key (401)", "farmhand rotate")
    (station.home / "repos.env").chmod(0o644)
    status, lines = await examine(station)
    assert status == 1
    assert {name for name, line in lines.items() if line["ok"] is False} == {"key", "key-age", "api", "farm1 canary"}
    assert "chmod 600" in lines["key"]["fix"]


async def test_a_metered_key_in_a_shell_s_files_is_red(station: Workstation) -> None:
    (station.home / ".zshrc").write_text(f"export ANTHROPIC_API_KEY={DEFAULT_KEY}\n")
    await red(station, "shells", ".zshrc", "workstation.yml")


async def test_a_helper_in_claude_s_settings_is_red(station: Workstation) -> None:
    (station.home / ".claude" / "settings.json").write_text(json.dumps({"apiKeyHelper": "echo x"}))
    status, lines = await examine(station, "--no-canary")
    assert status == 1
    assert "apiKeyHelper" in lines["claude"]["detail"]


async def test_a_spool_that_waits_is_red(station: Workstation, farm: Sshd) -> None:
    station.write_hosts(farm1=entry(farm) | {"port": free_port()})
    await station.run("claude-cheap", "hello")
    station.write_hosts(farm1=entry(farm))
    await red(station, "spool", "1 task waits", "farmhand flush")


async def test_hosts_red(station: Workstation, farm: Sshd, agent: Agent, tmp_path: Path) -> None:
    await agent.call("POST", "/v1/tasks", body={"tasks": [{"id": "parked", "prompt": "x"}]})
    await red(station, "farm1 queue", "1 task awaits a key", "claude-cheap")
    await agent.stop()
    await red(station, "farm1 reach", "the agent does not answer", "systemctl status jada-agent")
    farm.trust(keygen(tmp_path / "other"))
    # A shared connection would not look at the host's key again.
    station.environment["XDG_RUNTIME_DIR"] = "/dev/null/nowhere"
    station.environment["XDG_CACHE_HOME"] = "/dev/null/nowhere"
    await red(station, "farm1 reach", "the host key is not the one on record", "ssh-keygen -R")
    farm.known_hosts.write_text("")
    await red(station, "farm1 reach", "the host key is unknown", "known_hosts")
    (station.config_dir / "hosts.json").unlink()
    await red(station, "hosts", "no farm host is known", "farmhand up")


async def test_red_is_told_and_green_is_not(station: Workstation, tmp_path: Path) -> None:
    got: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    way = f"webhook:http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        assert (await station.run(*DOCTOR, "--no-canary", "--notify", way)).status == 0
        assert got == []
        (station.home / "repos.env").chmod(0o644)
        done = await station.run(*DOCTOR, "--no-canary", "--notify", way, "--notify", "mail:nobody")
    finally:
        await runner.cleanup()
    assert done.status == 1
    assert got[0]["title"].startswith("farmhand doctor: 3 of ")
    assert "chmod 600" in got[0]["text"]
    assert "nobody was told: mail is not installed" in done.err


async def test_the_timer_is_written_and_nothing_else_is_done(station: Workstation, api: MessagesApi) -> None:
    refused = await station.run("farmhand", "doctor", "--install-timer")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    done = await station.run(
        *("farmhand", "doctor", "--install-timer", "--no-canary", "--skip", "at-rest", "--notify", "desktop"),
    )
    assert done.status == 0, done.err
    assert b"systemctl --user enable --now farmhand-doctor.timer" in done.out
    unit = (station.home / ".config/systemd/user/farmhand-doctor.service").read_text()
    assert '"doctor" "--no-canary" "--skip" "at-rest" "--notify" "desktop"' in unit
    assert not api.state.log.entries()
    process = await asyncio.create_subprocess_exec(
        "systemd-analyze", "verify", "--man=no", str(station.home / ".config/systemd/user/farmhand-doctor.timer"),
        stderr=asyncio.subprocess.PIPE, env=os.environ | {"HOME": str(station.home)},
    )  # fmt: skip
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("arguments", [["--notify", "pager"], ["--skip", "everything"], ["extra"]])
async def test_bad_usage_is_one_line(station: Workstation, arguments: list[str]) -> None:
    done = await station.run("farmhand", "doctor", *arguments)
    assert (done.status, done.out, done.err.count("\n")) == (2, b"", 1)
