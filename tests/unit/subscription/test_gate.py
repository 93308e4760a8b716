"""What must hold before the CLI is asked: it is there, new enough, on a plan. Scripts stand in for odd CLIs."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.core import claude
from farmhand.core.errors import FarmhandError, NotConfigured, Refused
from farmhand.subscription import gate
from farmhand.subscription.command import command
from farmhand.subscription.environment import from_nothing

KEY = "sk-ant-test-environment-000000000000000000"


def program(directory: Path, says: str, status: int = 0) -> str:
    path = directory / "claude"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit {status}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("2.1.329 (Claude Code)", "2.1.329 is older than 2.1.330"),
        ("1.99.999 (Claude Code)", "is older than"),
        ("", "names no version"),
        ("claude: not found", "names no version"),
    ],
)
def test_an_old_or_another_program_is_refused(tmp_path: Path, says: str, words: str) -> None:
    with pytest.raises(NotConfigured, match=words):
        gate.check_version(program(tmp_path, says), {})


@pytest.mark.parametrize("says", ["2.1.330 (Claude Code)", "2.1.1000", "3.0.0 (Claude Code)"])
def test_a_newer_one_is_taken(tmp_path: Path, says: str) -> None:
    gate.check_version(program(tmp_path, says), {})


@pytest.mark.parametrize(
    ("says", "status", "kind"),
    [
        ('{"loggedIn": false, "authMethod": "none"}', 1, NotConfigured),
        ('{"loggedIn": true, "authMethod": "api_key", "apiKeySource": "ANTHROPIC_API_KEY"}', 0, Refused),
        ('{"loggedIn": true, "authMethod": "oauth_token", "apiKeySource": "/login managed key"}', 0, Refused),
        ('{"loggedIn": true}', 0, Refused),
        ('{"loggedIn": true, "authMethod": "oauth_token", "apiProvider": "bedrock"}', 0, Refused),
        ("no JSON", 0, NotConfigured),
        ("7", 0, NotConfigured),
    ],
)
def test_only_a_plan_passes(tmp_path: Path, says: str, status: int, kind: type[FarmhandError]) -> None:
    with pytest.raises(kind) as caught:
        gate.check_plan(program(tmp_path, says, status), {})
    assert caught.value.exit_code == (5 if kind is Refused else 3)


@pytest.mark.parametrize("method", ["oauth_token", "claude.ai"])
def test_a_plan_passes(tmp_path: Path, method: str) -> None:
    gate.check_plan(program(tmp_path, f'{{"loggedIn": true, "authMethod": "{method}"}}'), {})


def test_the_argv_has_no_prompt_and_never_bare() -> None:
    argv = command("/bin/claude", "opus", Path("/run/system"))
    assert argv[argv.index("--system-prompt-file") + 1] == "/run/system"
    assert argv[argv.index("--tools") + 1] == argv[argv.index("--setting-sources") + 1] == ""
    wanted = {"-p", "--no-session-persistence", "--strict-mcp-config", "--disable-slash-commands", "--restricted"}
    assert wanted <= set(argv)
    assert argv[-2:] == ["--permission-prompts", "none"]
    assert "--bare" not in argv
    for model in ("--bare", "--bare=true", "-p"):
        with pytest.raises(Refused, match="never started with --bare"):
            command("/bin/claude", model, Path("/run/system"))
    with pytest.raises(Refused):
        command("--bare", "opus", Path("/run/system"))


def test_the_environment_is_made_of_nothing() -> None:
    hostile = {
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:7345",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR": "3",
        "NODE_OPTIONS": "--require /tmp/evil.js",
        "LD_PRELOAD": "/tmp/evil.so",
        "BASH_ENV": "/tmp/evil.sh",
        "LANG": "de_DE.UTF-8",
        "LC_CTYPE": KEY,
        "HTTPS_PROXY": "http://proxy:1",
        "no_proxy": "localhost",
        "NODE_EXTRA_CA_CERTS": "/ca.pem",
        "HOME": "/home/me",
        "MY_TOKEN": "x",
    }
    own = {"HOME": "/private", "PATH": "/bin"}
    assert from_nothing(hostile, own, timeout_s=600) == claude.SWITCHES | own | {
        "LANG": "de_DE.UTF-8",
        "HTTPS_PROXY": "http://proxy:1",
        "no_proxy": "localhost",
        "NODE_EXTRA_CA_CERTS": "/ca.pem",
        "DISABLE_COMPACT": "1",
        "DISABLE_AUTO_COMPACT": "1",
        "API_TIMEOUT_MS": "600000",
    }
