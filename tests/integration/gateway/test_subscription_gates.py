"""What the subscription needs before it starts: it is off until then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.gateway.test_subscription import ask
from tests.support.gateway import GatewayProcess
from tests.support.messages_api import DEFAULT_KEY
from tests.support.plan import TOKEN, Plan, settings

DIALECTS = ("messages", "chat", "responses")


@pytest.fixture
async def plan(tmp_path: Path) -> AsyncIterator[Plan]:
    async with Plan(tmp_path) as made:
        yield made


async def test_off_by_default_and_without_a_gate_it_does_not_start(plan: Plan, tmp_path: Path) -> None:
    """One line and an exit status for each thing that is missing."""
    without_terms = settings().replace('terms_read = "2026-11-28"\n', "")
    cases: list[tuple[str, dict[str, str], int, str]] = [
        (without_terms, {}, 5, "docs/gateway.md#terms"),
        (settings(), {"CLAUDE_CODE_OAUTH_TOKEN": ""}, 3, "CLAUDE_CODE_OAUTH_TOKEN is not set"),
        (settings(auth_env="OTHER"), {}, 3, "OTHER is not set"),
        (settings(), {"CLAUDE_CODE_OAUTH_TOKEN": DEFAULT_KEY}, 3, "is no login's token"),
        (settings(), {"CLAUDE_CODE_OAUTH_TOKEN": f"{TOKEN}\nrest"}, 3, "has white space in it"),
        (settings(cli="claude-none"), {}, 3, "not installed"),
        (settings(cli=str(tmp_path / "old")), {}, 3, "2.0.1 is older than 2.1.330"),
        (settings(cli=str(tmp_path / "keyed")), {}, 5, "would not use the plan's login but ANTHROPIC_API_KEY"),
        (settings(cli=str(tmp_path / "out")), {}, 3, "not logged in"),
        (settings(cli="claude --bare"), {}, 3, "cli: neither"),
        (settings(models={"chat": "--bare"}), {}, 3, "models.chat"),
        (settings(enabled=False), {}, 3, "it is not enabled"),
    ]
    status = '{"loggedIn": true, "authMethod": "api_key", "apiKeySource": "ANTHROPIC_API_KEY"}'
    for name, says in (
        ("old", ("2.0.1", "")),
        ("keyed", ("2.1.330", status)),
        ("out", ("2.1.330", '{"loggedIn": false}')),
    ):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && echo '{says[0]}' || echo '{says[1]}'\n")
        script.chmod(0o755)
    async with GatewayProcess(tmp_path / "home") as gateway:
        plan.use(gateway)
        usual = dict(gateway.environ)
        await gateway.start()
        assert (await ask(gateway, "x"))[0] == 402
        assert (await gateway.status())["terms"] == ""
        await gateway.stop()
        for text, environ, wanted, words in cases:
            gateway.environ = usual | environ
            gateway.write(text)
            found, out, err = await gateway.command("serve")
            assert (found, out, len(err.splitlines()), words in err) == (wanted, "", 1, True), (words, err)
            assert TOKEN not in err
    assert plan.runs() == []
    assert plan.api.log == []
