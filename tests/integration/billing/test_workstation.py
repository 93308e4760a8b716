"""Before and after the role `workstation`: the facts, the real CLI's own word and what the API received are the same.

The shells are the real ones, the CLI is the real one, the API is the loopback one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farmhand.billing import Verdict, find
from tests.integration.billing.playbook import snapshot, workstation
from tests.support.cli_said import Said, ask_each, install
from tests.support.homes import FISH, GUARD, PROFILE
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.shells import KINDS, Home

TOKEN = "gateway-token-loopback"
HELPED = "sk-ant-test-helper-000000000"
#: Every kind of shell gets something else.
FILES = {
    ".zshrc": "autoload -Uz add-zsh-hook\nsource ~/.zsh/secrets.zsh\n",
    ".zsh/secrets.zsh": f"# keys\nexport GITHUB_TOKEN=ghp_kept ANTHROPIC_API_KEY='{DEFAULT_KEY}'\n",
    ".profile": f"{PROFILE}export ANTHROPIC_AUTH_TOKEN={TOKEN}\n",
    ".bashrc": f"{GUARD}set -a; . ~/repos.env; set +a\n",
    "repos.env": f"# mine\nGITHUB_TOKEN='ghp kept'\nANTHROPIC_API_KEY={DEFAULT_KEY}\n",
    FISH: "status is-interactive; and set -gx CLAUDE_CODE_USE_BEDROCK 1\n"
    f"if status is-login\n  set -gx ANTHROPIC_API_KEY {DEFAULT_KEY}\nend\n",
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.log_in()
    install(made)
    return made


def facts(home: Home) -> dict[tuple[str, str], Verdict]:
    report = find(home.path, home.environment, home.project, ask=False)
    return {(verdict.shell, verdict.mode): verdict for verdict in report.verdicts}


def agree(verdict: Verdict, said: Said) -> None:
    """The facts are what the CLI says and the API sees."""
    assert verdict.how == "asked", verdict
    assert said.api_key_source == verdict.api_key_source, verdict.kind
    if verdict.billed == "cloud":
        assert said.path.startswith("/model/"), verdict.kind
        assert said.headers == {"authorization": "Bearer loopback-bearer"}
    else:
        assert said.path == "/v1/messages", verdict.kind
        assert tuple(said.headers) == verdict.headers, verdict.kind


async def all_agree(home: Home, api: MessagesApi, kinds: list[tuple[str, str]]) -> list[Said]:
    found = facts(home)
    said = await ask_each(home, api, kinds)
    for kind, answer in zip(kinds, said, strict=True):
        agree(found[kind], answer)
    return said


async def test_every_kind_of_shell_before_after_and_taken_back(home: Home, api: MessagesApi) -> None:
    home.put(FILES)
    (home.path / "repos.env").chmod(0o644)
    before = snapshot(home)
    assert {kind: verdict.credential for kind, verdict in facts(home).items()} == {
        ("bash", "login"): "ANTHROPIC_AUTH_TOKEN",
        ("bash", "interactive"): "ANTHROPIC_API_KEY",
        ("bash", "login interactive"): "ANTHROPIC_AUTH_TOKEN",
        ("zsh", "login"): "login",
        ("zsh", "interactive"): "ANTHROPIC_API_KEY",
        ("zsh", "login interactive"): "ANTHROPIC_API_KEY",
        ("fish", "login"): "ANTHROPIC_API_KEY",
        ("fish", "interactive"): "CLAUDE_CODE_USE_BEDROCK",
        ("fish", "login interactive"): "CLAUDE_CODE_USE_BEDROCK",
        ("sh", "login"): "ANTHROPIC_AUTH_TOKEN",
        ("sh", "interactive"): "login",
        ("sh", "login interactive"): "ANTHROPIC_AUTH_TOKEN",
    }
    await all_agree(home, api, KINDS)

    # Check mode says what a run does, and does none of it.
    checked = await workstation(home, "--check", "--diff")
    assert checked.status == 0, checked.out[-3000:]
    assert snapshot(home) == before
    done = await workstation(home, "--diff")
    assert done.status == 0, done.out[-3000:]
    assert checked.changed == done.changed == 1
    assert shown(checked.out) == shown(done.out)
    assert "+# export ANTHROPIC_AUTH_TOKEN=…" in done.out
    for secret in (DEFAULT_KEY, TOKEN, "ghp_kept", "ghp kept"):
        assert secret not in checked.out + done.out
    after = snapshot(home)
    assert after["repos.env"] == (
        before["repos.env"][0] + f"ANTHROPIC_AUTH_TOKEN={TOKEN}\n".encode(),
        0o600,
    )
    assert after[".zsh/secrets.zsh"][0].startswith(before[".zsh/secrets.zsh"][0])
    assert after[".zsh/secrets.zsh"][0].endswith(b"\nunset ANTHROPIC_API_KEY\n")
    for name in (".zsh/secrets.zsh", ".profile", ".bashrc", FISH):
        assert f"edited {home.path}/{name}" in done.out
        assert f"would edit {home.path}/{name}" in checked.out
    assert f"ANTHROPIC_AUTH_TOKEN commented out in {home.path}/.profile:6" in done.out
    assert after[".claude/.credentials.json"] == before[".claude/.credentials.json"]

    # The subscription pays in every kind of shell, and the API gets the login's token and nothing else.
    assert {verdict.billed for verdict in facts(home).values()} == {"subscription"}
    for said in await all_agree(home, api, KINDS):
        assert said == Said("none", "/v1/messages", {"authorization": "Bearer sk-ant-oat01-loopback-login"})

    again = await workstation(home, "--diff")
    assert (again.status, again.changed) == (0, 0), again.out[-3000:]
    assert snapshot(home) == after
    gone = await workstation(home, farmhand_state="absent")
    assert (gone.status, gone.changed) == (0, 1), gone.out[-3000:]
    # Byte for byte; only the key file stays private.
    assert snapshot(home) == before | {"repos.env": (before["repos.env"][0], 0o600)}
    never = await workstation(home, farmhand_state="absent")
    assert (never.status, never.changed) == (0, 0), never.out[-3000:]


def shown(out: str) -> list[str]:
    """The lines of the diff."""
    return [line for line in out.splitlines() if line.startswith(("+", "-"))]


@pytest.mark.parametrize(
    ("settings", "environ"),
    [
        ({"env": {"ANTHROPIC_API_KEY": DEFAULT_KEY}}, {"ANTHROPIC_API_KEY": HELPED}),
        ({"env": {"ANTHROPIC_API_KEY": ""}}, {"ANTHROPIC_API_KEY": DEFAULT_KEY}),
        ({"apiKeyHelper": f"echo {DEFAULT_KEY}"}, {}),
        ({"apiKeyHelper": f"echo {HELPED}"}, {"ANTHROPIC_API_KEY": DEFAULT_KEY}),
        ({"env": {"CLAUDE_CODE_USE_BEDROCK": "true"}}, {"ANTHROPIC_API_KEY": DEFAULT_KEY}),
        ({"env": {"CLAUDE_CODE_USE_BEDROCK": "0"}}, {"ANTHROPIC_AUTH_TOKEN": TOKEN, "ANTHROPIC_API_KEY": DEFAULT_KEY}),
        ({}, {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-of-the-environment"}),
    ],
    ids=["env wins", "emptied", "helper", "key over helper", "bedrock", "token over key", "oauth token"],
)
async def test_the_precedence_is_the_real_cli_s(
    home: Home, api: MessagesApi, settings: dict[str, object], environ: dict[str, str]
) -> None:
    home.put({".claude/settings.json": json.dumps(settings)})
    home.environ |= environ
    await all_agree(home, api, [("bash", "interactive")])


async def test_project_settings_and_env_file(home: Home, api: MessagesApi) -> None:
    home.put({"project/.env": f"ANTHROPIC_API_KEY={DEFAULT_KEY}\n"})
    [said] = await all_agree(home, api, [("zsh", "interactive")])
    assert said.api_key_source == "none", "the CLI does not read .env"
    home.put({"project/.claude/settings.local.json": json.dumps({"env": {"ANTHROPIC_API_KEY": DEFAULT_KEY}})})
    [said] = await all_agree(home, api, [("zsh", "interactive")])
    assert said.headers == {"x-api-key": DEFAULT_KEY}
