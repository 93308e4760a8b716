from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from farmhand.cli import statusline
from farmhand.core.settings import Settings, load
from tests.unit.cli.test_status import STATUS

BUDGET = {"limit_usd": 2.0, "spent_usd": 0.25, "reserved_usd": 0.25}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "config.toml"
    path.write_text("")
    return path


def conf(config: Path) -> Settings:
    return load(str(config))


def run(config: Path, *arguments: str, stdin: str = "") -> Result:
    argv = ["--config", str(config), "--no-refresh", *arguments]
    return CliRunner().invoke(statusline.command, argv, standalone_mode=False, input=stdin)


def process(config: Path, stdin: Any, *arguments: str, **environ: str) -> str:
    argv = ["statusline", "--config", str(config), *arguments]
    program = [sys.executable, "-c", "from farmhand.cli import main; main()", *argv]
    if isinstance(stdin, int):
        done = subprocess.run(program, stdin=stdin, env={**os.environ, **environ}, capture_output=True, check=True)
    else:
        done = subprocess.run(program, input=stdin, env={**os.environ, **environ}, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode()


def test_it_shows_what_was_last_seen_of_this_farm(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(config).stdout == "farm: not asked yet\n"
    one = {**STATUS, "spent_today_usd": 0.25, "budget_day": BUDGET}
    statusline.keep(conf(config), {"farm1": one, "farm2": {**STATUS, "awaiting_key": 0}, "farm3": None})
    line = "farm: 2 running, 4 queued, 3 awaiting a key · 1 host down · today US$ 0.25, US$ 1.50 left"
    assert run(config).stdout == f"{line}\n"
    shown = json.loads(run(config, "--json").stdout)
    assert shown["line"] == line
    assert shown["hosts"]["farm1"]["left_usd"] == "1.50"
    assert shown["hosts"]["farm3"] is None
    # Old figures have their age, those of another day no money, and those of another farm are none.
    now = time.time()
    monkeypatch.setattr("farmhand.cli.statusline.time.time", lambda: now + 86400)
    assert run(config).stdout == "farm: 2 running, 4 queued, 3 awaiting a key · 1 host down · 24 h ago\n"
    (config.parent / "other.toml").write_text('hosts_file = "/elsewhere/hosts.json"\n')
    assert run(config.parent / "other.toml").stdout == "farm: not asked yet\n"


def test_a_narrow_line_drops_parts_and_never_letters(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statusline.keep(conf(config), {"farm1": {**STATUS, "awaiting_key": 0, "spent_today_usd": 0.25}})
    monkeypatch.setenv("COLUMNS", "30")
    assert run(config).stdout == "farm: 1 running, 2 queued\n"


@pytest.mark.parametrize(
    ("session", "said"),
    [
        ({"rate_limits": {"five_hour": {"used_percentage": 23.5}}}, "your plan pays (5 h: 24 %)"),
        ({"rate_limits": {"five_hour": {"used_percentage": 100}, "seven_day": {"used_percentage": 0}}},
         "your plan is used up (5 h: 100 %, 7 days: 0 %): ! claude-cheap goes on"),
        ({"rate_limits": {"five_hour": {"used_percentage": 1}, "seven_day": {"used_percentage": 41.2}}},
         "your plan pays (5 h: 1 %, 7 days: 41 %)"),
        # Nothing is known from what is missing, null, of another form, or a limit of spending.
        ({}, ""),
        # A window that has begun again since is no used-up plan.
        ({"rate_limits": {"five_hour": {"used_percentage": 100, "resets_at": 1_700_000_000}}}, ""),
        ({"rate_limits": {"five_hour": {"used_percentage": 100, "resets_at": 1_700_000_000},
                          "seven_day": {"used_percentage": 41, "resets_at": 4_000_000_000}}},
         "your plan pays (7 days: 41 %)"),
        ({"rate_limits": None}, ""),
        ({"rate_limits": {"five_hour": None, "seven_day": {"used_percentage": "x"}}}, ""),
        ({"rate_limits": {"spend_limit": {"used_percentage": 10}}}, ""),
        ([], ""),
    ],
)  # fmt: skip
def test_who_pays_is_said_where_it_is_seen(config: Path, session: Any, said: str) -> None:
    line = process(config, json.dumps(session).encode(), "--no-refresh")
    assert line == "farm: not asked yet" + (f" · {said}" if said else "") + "\n"


def test_a_key_in_the_shell_is_said_and_never_shown(config: Path) -> None:
    shown = process(config, b"", "--no-refresh", ANTHROPIC_API_KEY="sk-ant-test-1")
    assert shown == "farm: not asked yet · a metered key is set in this shell\n"


@pytest.mark.parametrize("stdin", [b"", b"{", b"\xff\xfe", b"null", b"[" * 100_000])
def test_bad_sessions_are_none(config: Path, stdin: bytes) -> None:
    assert process(config, stdin, "--no-refresh") == "farm: not asked yet\n"


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(config: Path) -> None:
    ours, theirs = os.pipe()
    try:
        assert process(config, ours, "--no-refresh") == "farm: not asked yet\n"
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_damaged_note_is_none(config: Path) -> None:
    statusline.keep(conf(config), {"farm1": STATUS})
    (config.parent / "farmhand" / "status.json").write_text('{"farm": 1}')
    assert run(config).stdout == "farm: not asked yet\n"


def test_the_hosts_are_asked_in_the_background_and_not_too_often(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("farmhand.cli.statusline.subprocess.Popen", lambda argv, **_: started.append(argv))
    for _ in range(3):
        CliRunner().invoke(statusline.command, ["--config", str(config)], standalone_mode=False)
    assert [argv[3:] for argv in started] == [["status", "--json", "--config", str(config)]]
    statusline.keep(conf(config), {"farm1": STATUS})
    (config.parent / "farmhand" / "status.asked").unlink()
    CliRunner().invoke(statusline.command, ["--config", str(config)], standalone_mode=False)
    assert len(started) == 1
