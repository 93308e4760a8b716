"""The fallback to the operator's own plan, with the real claude CLI and a made-up login.

A `claude` on PATH notes its environment and points the real one at the loopback API: it stands for the provider's host.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.integration.dispatch.conftest import Workstation
from tests.integration.dispatch.test_fallback import on_terminal, spooled
from tests.support.agent import bodies
from tests.support.claude import claude_binary
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi

TOKEN = "sk-ant-oat01-made-up-00000000000000000000"


@pytest.fixture
async def station(workstation: Workstation, api: MessagesApi, tmp_path: Path) -> Workstation:
    """A workstation whose one farm host is down, with a claude and a login."""
    workstation.write_hosts(farm1={"address": "127.0.0.1", "port": 1})
    api.state.keys = frozenset({DEFAULT_KEY, TOKEN})
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "claude"
    program.write_text(
        f"#!/bin/sh\nenv >> {tmp_path}/environment\nprintf '%s\\n' \"$@\" >> {tmp_path}/arguments\n"
        f'export ANTHROPIC_BASE_URL={api.url}\nexec {claude_binary()} "$@"\n'
    )
    program.chmod(0o755)
    workstation.environment["PATH"] = f"{directory}:{workstation.environment['PATH']}"
    log_in(workstation)
    return workstation


def log_in(workstation: Workstation, **held: object) -> Path:
    """Write the login file."""
    path = workstation.home / ".claude" / ".credentials.json"
    path.parent.mkdir(exist_ok=True)
    login = {
        "accessToken": TOKEN,
        "refreshToken": "sk-ant-ort01-made-up",
        "expiresAt": int((time.time() + 3600) * 1000),
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
    path.write_text(json.dumps({"claudeAiOauth": login | held}))
    path.chmod(0o600)
    return path


def said(api: MessagesApi) -> list[str]:
    """What the user said in each request."""
    messages = [message for body in bodies(api) for message in body["messages"] if message["role"] == "user"]
    return ["".join(block["text"] for block in message["content"]) for message in messages]


SUBSCRIPTION = ("claude-cheap", "--fallback", "subscription", "--allow-subscription")


async def test_a_text_task_runs_on_the_login_and_never_on_the_key(
    station: Workstation, api: MessagesApi, tmp_path: Path
) -> None:
    login = log_in(station).read_bytes()
    station.environment |= {
        "ANTHROPIC_API_KEY": DEFAULT_KEY,
        "ANTHROPIC_AUTH_TOKEN": DEFAULT_KEY,
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "AWS_BEARER_TOKEN_BEDROCK": "secret",
    }
    (station.home / ".claude" / "settings.json").write_text(json.dumps({"apiKeyHelper": f"echo {DEFAULT_KEY}"}))
    prompt = "/help @/etc/hostname; id"
    done = await station.run(*SUBSCRIPTION, prompt)
    assert done.status == 0, done.err
    assert prompt.encode() in done.out
    assert said(api) == [prompt]
    assert done.err.count("\n") == 1
    assert "drew on the plan's own limits" in done.err
    [post] = api.posts
    headers = {name.lower(): value for name, value in post.headers.items()}
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert "x-api-key" not in headers
    assert not json.loads(post.body).get("tools")
    seen = (tmp_path / "environment").read_text()
    for word in ("ANTHROPIC_", "BEDROCK", DEFAULT_KEY, "FARMHAND_"):
        assert word not in seen
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert prompt not in arguments
    assert "--bare" not in arguments
    assert login == (station.home / ".claude" / ".credentials.json").read_bytes()


async def test_json_says_whose_capacity_paid(station: Workstation) -> None:
    done = await station.run(*SUBSCRIPTION, "--json", "--id", "mine", "hello")
    result = json.loads(done.out)
    assert (done.status, result["id"], result["state"]) == (0, "mine", "succeeded")
    assert (result["residency"], result["cost_usd"]) == ("subscription", None)
    assert result["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fallback", "subscription", "x"], "is off"),
        (["--fallback", "subscription", "--no-allow-subscription", "x"], "is off"),
        (["--fallback", "subscription", "--allow-subscription", "--tools", "Read", "x"], "with tools never"),
        (["--fallback", "subscription", "--allow-subscription", "--schema", "{}", "x"], "has a schema"),
    ],
)
async def test_the_policy_refuses_with_5(
    station: Workstation, api: MessagesApi, arguments: list[str], words: str
) -> None:
    done = await station.run("claude-cheap", *arguments)
    assert (done.status, done.out, done.err.count("\n")) == (5, b"", 1)
    assert words in done.err
    assert not api.posts
    assert spooled(station) == []


async def test_the_setting_turns_it_on(station: Workstation) -> None:
    (station.config_dir / "config.toml").write_text('fallback = "subscription"\nallow_subscription = true\n')
    assert (await station.run("claude-cheap", "hello")).status == 0


async def test_a_login_in_the_environment_is_one_as_well(station: Workstation, api: MessagesApi) -> None:
    (station.home / ".claude" / ".credentials.json").unlink()
    station.environment["CLAUDE_CODE_OAUTH_TOKEN"] = TOKEN
    done = await station.run(*SUBSCRIPTION, "hello")
    assert done.status == 0, done.err
    assert [post.headers.get("Authorization") for post in api.posts] == [f"Bearer {TOKEN}"]


async def test_a_metered_key_that_claude_has_saved_is_not_used(station: Workstation, api: MessagesApi) -> None:
    # /login makes one in the Console for who has no plan; it comes before any login.
    (station.home / ".claude.json").write_text(json.dumps({"primaryApiKey": DEFAULT_KEY}))
    (station.home / ".claude" / ".credentials.json").write_text('{"claudeAiOauth": {"accessToken": "x", "scopes": []}}')
    saved = await station.run(*SUBSCRIPTION, "hello")
    assert (saved.status, saved.err.count("\n")) == (5, 1)
    assert "would not use the plan's login but /login managed key" in saved.err
    assert not api.posts
    assert DEFAULT_KEY not in saved.err


async def test_without_cli_or_login_it_says_so_at_once(station: Workstation, api: MessagesApi) -> None:
    log_in(station, refreshToken="", expiresAt=1000)
    expired = await station.run(*SUBSCRIPTION, "hello")
    assert (expired.status, expired.err.count("\n")) == (3, 1)
    assert "ended on 1970-01-01" in expired.err
    assert "/login" in expired.err
    (station.home / ".claude" / ".credentials.json").unlink()
    missing = await station.run(*SUBSCRIPTION, "hello")
    assert (missing.status, "no login to a plan" in missing.err) == (3, True)
    log_in(station)
    directory, _, rest = station.environment["PATH"].partition(":")
    assert Path(directory, "claude").exists()
    station.environment["PATH"] = rest
    uninstalled = await station.run(*SUBSCRIPTION, "hello")
    assert (uninstalled.status, uninstalled.err.count("\n")) == (3, 1)
    assert "npm install -g @anthropic-ai/claude-code" in uninstalled.err
    assert not api.posts


async def test_a_plan_that_is_used_up_fails_the_task(station: Workstation, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=429))
    done = await station.run(*SUBSCRIPTION, "hello")
    assert (done.status, done.out, done.err.count("\n")) == (1, b"", 1)
    assert "claude failed on your login" in done.err


async def test_on_a_terminal_the_operator_may_choose_it(station: Workstation) -> None:
    station.environment["FARMHAND_ALLOW_SUBSCRIPTION"] = "true"
    done, shown = await on_terminal(station, b"s\n", "hello")
    assert done.status == 0
    assert b"hello" in done.out
    assert "drew on the plan's own limits" in shown


async def test_ctrl_c_ends_the_cli_as_well(station: Workstation, api: MessagesApi, tmp_path: Path) -> None:
    api.state.event_s = 2.0
    process = await station.start(*SUBSCRIPTION, "hello")
    for _ in range(2400):
        if api.posts:
            break
        await asyncio.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 130
    assert err == b"claude-cheap: stopped\n"
    for _ in range(2400):
        if api.posts[0].aborted:
            break
        await asyncio.sleep(0.05)
    assert api.posts[0].aborted
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in read(path)]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
