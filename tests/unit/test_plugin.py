"""The Claude Code plugin: its manifests name what is there, its hooks bear any input, its texts stay short."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from farmhand import __version__

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugin"
EVENT = PLUGIN / "hooks/event.sh"
SHELLS = [shell for shell in ("sh", "bash", "dash") if shutil.which(shell)]
#: What claude 2.1.330 gives a StopFailure hook for a used-up plan, and for an API that is busy.
LIMIT = {
    "session_id": "0e4133d5",
    "hook_event_name": "StopFailure",
    "error": "rate_limit",
    "last_assistant_message": "You've hit your 5-hour limit · resets 8:49pm (UTC)",
}
BUSY = LIMIT | {"last_assistant_message": "API Error: Server is temporarily limiting requests (not your usage limit)"}


def said(event: str, stdin: bytes, data: Path, *, shell: str = "sh", path: str = "", reminder: str = "") -> bytes:
    """What the hook prints; it ends with 0 and has nothing to complain about."""
    environ = {"PATH": path or f"{data}:{os.environ['PATH']}", "CLAUDE_PLUGIN_DATA": str(data)}
    environ |= {"CLAUDE_PLUGIN_OPTION_REMINDER": reminder} if reminder else {}
    done = subprocess.run([shell, str(EVENT), event], input=stdin, env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The plugin's directory for data; with a farmhand in it, which is on PATH."""
    (tmp_path / "farmhand").write_text("#!/bin/sh\n")
    (tmp_path / "farmhand").chmod(0o755)
    return tmp_path


def encoded(event: dict[str, str]) -> bytes:
    """As the CLI writes it."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_reached_limit_is_offered_once_at_the_next_prompt(data: Path, shell: str) -> None:
    assert said("limit", encoded(LIMIT), data, shell=shell) == b""
    offer = json.loads(said("prompt", b"{}", data, shell=shell))
    assert list(offer) == ["systemMessage"]
    assert "! farmhand batch tasks.jsonl" in offer["systemMessage"]
    assert said("prompt", b"{}", data, shell=shell) == b""


@pytest.mark.parametrize(
    "stdin",
    [encoded(BUSY), b"", b"{", b"\0\xff" * 1000, b"x" * 1_000_000, b'{"last_assistant_message": null}', b"$(touch no)"],
)
@pytest.mark.parametrize("event", ["limit", "prompt", "", "other; exit 2"])
def test_nothing_else_makes_it_say_or_do_anything(data: Path, event: str, stdin: bytes) -> None:
    before = sorted(data.iterdir())
    assert said(event, stdin, data) == b""
    assert sorted(data.iterdir()) == before


def test_without_farmhand_or_after_a_window_the_offer_is_not_made(data: Path, tmp_path: Path) -> None:
    said("limit", encoded(LIMIT), data)
    assert said("prompt", b"{}", data, path="/usr/bin:/bin") == b""
    said("limit", encoded(LIMIT), data)
    old = time.time() - 6 * 3600
    os.utime(data / "limit", (old, old))
    assert said("prompt", b"{}", data) == b""
    assert not (data / "limit").exists()
    assert said("limit", encoded(LIMIT), tmp_path / "none") == b""


def test_the_reminder_is_off_until_it_is_turned_on(data: Path) -> None:
    for value in ("", "false", "no"):
        assert said("prompt", b"{}", data, reminder=value) == b""
    found = json.loads(said("prompt", b"{}", data, reminder="true"))
    assert found["hookSpecificOutput"]["hookEventName"] == "UserPromptSubmit"
    assert len(found["hookSpecificOutput"]["additionalContext"]) < 160
    said("limit", encoded(LIMIT), data)
    assert set(json.loads(said("prompt", b"{}", data, reminder="true"))) == {"systemMessage", "hookSpecificOutput"}


def test_the_manifests_name_what_is_there() -> None:
    market = json.loads((ROOT / ".claude-plugin/marketplace.json").read_text())
    [entry] = market["plugins"]
    manifest = json.loads((ROOT / entry["source"] / ".claude-plugin/plugin.json").read_text())
    assert (market["name"], entry["name"], manifest["name"], manifest["version"]) == (*["farmhand"] * 3, __version__)
    assert manifest["userConfig"]["reminder"]["default"] is False
    servers = json.loads((PLUGIN / ".mcp.json").read_text())["mcpServers"]
    assert servers == {"farmhand": {"command": "farmhand", "args": ["mcp"], "alwaysLoad": True}}
    for groups in json.loads((PLUGIN / "hooks/hooks.json").read_text())["hooks"].values():
        for hook in (hook for group in groups for hook in group["hooks"]):
            # Unquoted, a directory with a space in its name ends every hook (anthropics/claude-code#33431).
            assert re.fullmatch(r'sh "\$\{CLAUDE_PLUGIN_ROOT\}/hooks/event\.sh" (limit|prompt)', hook["command"])
            assert hook["timeout"] <= 5


def test_what_every_session_is_told_is_short_and_names_the_tools_as_the_cli_does() -> None:
    """Descriptions of skills have a budget; what goes beyond is cut (anthropics/claude-code#64606)."""
    texts = sorted([*PLUGIN.glob("commands/*.md"), *PLUGIN.glob("skills/*/SKILL.md")])
    assert [text.parent.name + "/" + text.stem for text in texts] == [
        "commands/farm-batch", "commands/farm", "farm-out/SKILL",
    ]  # fmt: skip
    for text in texts:
        front = text.read_text().split("---\n")[1]
        description = re.search(r"^description: (.+)$", front, re.MULTILINE)
        assert description
        assert len(description[1]) <= 300
        # A description is YAML: a colon in it would end the whole front matter.
        assert ": " not in description[1]
        assert not re.search(r"mcp__(?!plugin_farmhand_farmhand__farm_)", front)
        # What is no part of every session costs it nothing.
        assert ("disable-model-invocation: true" in front) == (text.parent.name == "commands")
