"""farmhand doctor's screen and exit status: green, red, and yellow for what cannot be told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from farmhand import billing
from farmhand.billing import Report, Verdict
from farmhand.billing.names import METERED
from farmhand.cli import doctor
from farmhand.cli.checks import Check, failed, passed, station, untold
from farmhand.core.errors import NotConfigured
from farmhand.core.settings import Settings

GREEN = replace(passed("accepts the key"), name="api")
RED = replace(failed("no key", "make one"), name="key")
YELLOW = replace(untold("cannot be told", "look"), name="shells")


def test_a_workstation_without_claude_needs_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("CLAUDE_CONFIG_DIR", "CLAUDE_CODE_OAUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    conf = Settings()
    assert station.login(conf).state == station.claude(conf, ask=False).state == "green"
    # Where something needs them, or one of them is there, both are looked at.
    assert station.claude(conf, ask=True).state == "red"
    for wanted in (Settings(fallback="subscription"), Settings(allow_subscription=True)):
        assert station.claude(wanted, ask=False).state == "red"
        with pytest.raises(NotConfigured, match="no login to a plan"):
            station.login(wanted)
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude/.credentials.json").write_text("{}")
    assert station.claude(conf, ask=False).state == "red"


def run(monkeypatch: pytest.MonkeyPatch, lines: list[Check], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: lines)
    done = CliRunner().invoke(doctor.command, [*arguments], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.return_value, done.output


@pytest.mark.parametrize(
    ("lines", "status", "total"),
    [
        ([GREEN], 0, "all green"),
        ([GREEN, YELLOW], 1, "1 of 2 cannot be told"),
        ([RED, YELLOW, GREEN], 1, "1 of 3 red, 1 of 3 cannot be told"),
        ([Check(state="left_out", detail="left out", name="spool"), GREEN], 0, "all green"),
    ],
)
def test_what_cannot_be_told_is_yellow_and_no_success(
    monkeypatch: pytest.MonkeyPatch, lines: list[Check], status: int, total: str
) -> None:
    code, out = run(monkeypatch, lines)
    assert (code, out.splitlines()[-1]) == (status, total)
    code, out = run(monkeypatch, lines, "--json")
    told = json.loads(out)
    assert (code, told["ok"]) == (status, status == 0)
    assert [line["state"] for line in told["checks"]] == [line.state for line in lines]


def test_a_yellow_line_has_its_mark_and_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    _, out = run(monkeypatch, [YELLOW])
    assert out.splitlines()[:2] == ["?    shells  cannot be told", f"{'':13}fix: look"]


def verdict(billed: str, how: str = "asked") -> Verdict:
    return Verdict(
        "zsh", "interactive", "unknown" if billed == "unknown" else "login", billed, how=how, reason="it hung"
    )


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [
        ([verdict("subscription")], "green"),
        ([verdict("subscription"), verdict("unknown")], "unknown"),
        ([verdict("unknown"), verdict("api_key")], "red"),
        ([verdict("subscription", "read")], "unknown"),
        ([], "unknown"),
    ],
)
def test_shells_are_green_only_where_every_kind_was_seen(
    monkeypatch: pytest.MonkeyPatch, verdicts: list[Verdict], state: str
) -> None:
    report = Report(verdicts, [], [], logged_in=True, asked=["op read op://x"])
    monkeypatch.setattr(billing, "find", lambda **_: report)
    line = station.shells()
    assert line.state == state
    assert "asked once: op read op://x" in line.detail


@pytest.mark.parametrize(
    ("name", "value", "state"),
    [
        ("ANTHROPIC_API_KEY", "sk-ant-test-x", "red"),
        ("CLAUDE_CODE_USE_BEDROCK", "1", "red"),
        ("CLAUDE_CODE_USE_BEDROCK", "0", "green"),
        ("CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR", "3", "red"),
        ("ANTHROPIC_PROFILE", "work", "red"),
        ("ANTHROPIC_CUSTOM_HEADERS", "X-Team: a", "green"),
        ("ANTHROPIC_CUSTOM_HEADERS", "X-Api-Key: a", "red"),
    ],
)
def test_the_session_is_looked_at_by_the_clis_own_names(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, state: str
) -> None:
    for each in METERED:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, value)
    assert station.environment().state == state
