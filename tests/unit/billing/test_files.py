"""What is read and not run: the session's files, systemd's manager, the CLI's settings, the login; and readings."""

from __future__ import annotations

import json
import plistlib
from pathlib import Path

import pytest

from farmhand.billing import Report, find
from farmhand.core.keys import fingerprint

KEY = "sk-ant-test-first-0000000000"
OTHER = "sk-ant-test-second-000000000"
MANAGED = '{{"env":{{"ANTHROPIC_API_KEY":"{key}"}}}}'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    (directory / ".claude").mkdir(parents=True)
    login = {"claudeAiOauth": {"accessToken": "sk-ant-oat01-x", "subscriptionType": "max"}}
    (directory / ".claude/.credentials.json").write_text(json.dumps(login))
    (directory / ".zshrc").write_text("A=1\n")
    return directory


def put(home: Path, **files: str) -> None:
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def look(home: Path, environ: dict[str, str] | None = None, cwd: Path | None = None, *, ask: bool = False) -> Report:
    return find(home, environ or {}, cwd, root=home.parent / "root", ask=ask, ask_shell=False)


def test_settings_win_over_the_environment_and_local_over_user(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    put(home, **{".claude/settings.json": json.dumps({"env": {"ANTHROPIC_API_KEY": KEY}}, indent=1)})
    put(project, **{".claude/settings.local.json": json.dumps({"env": {"ANTHROPIC_API_KEY": OTHER}})})
    environ = {"ANTHROPIC_API_KEY": "sk-ant-test-third-0000000000"}
    assert {v.fingerprint for v in look(home, environ).verdicts} == {fingerprint(KEY)}
    report = look(home, environ, project)
    assert {v.fingerprint for v in report.verdicts} == {fingerprint(OTHER)}
    assert [str(source.location) for source in report.reaching if source.location.path] == [
        f"{home}/.claude/settings.json:3",
        f"{project}/.claude/settings.local.json:1",
    ]
    assert KEY not in json.dumps(report.as_dict()) + repr(report)


def test_an_empty_value_in_the_settings_takes_the_key_away(home: Path) -> None:
    put(home, **{".claude/settings.json": '{"env":{"ANTHROPIC_API_KEY":""}}'})
    report = look(home, {"ANTHROPIC_API_KEY": KEY})
    assert {verdict.billed for verdict in report.verdicts} == {"subscription"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("root/etc/environment", "ANTHROPIC_API_KEY={key}\n"),
        ("root/etc/environment", 'ANTHROPIC_API_KEY="{key}"\n'),
        ("home/.pam_environment", "ANTHROPIC_API_KEY DEFAULT={key}\n"),
        ("home/.config/environment.d/50-key.conf", "ANTHROPIC_API_KEY={key}\n"),
        ("root/etc/claude-code/managed-settings.json", MANAGED),
        ("root/etc/claude-code/managed-settings.d/a.json", MANAGED),
        ("root/Library/Application Support/ClaudeCode/managed-settings.json", MANAGED),
    ],
)
def test_the_systems_own_files_reach_every_shell(home: Path, file: str, text: str) -> None:
    put(home.parent, **{file: text.format(key=KEY)})
    report = look(home)
    assert {verdict.billed for verdict in report.verdicts} == {"api_key"}
    assert [str(source.location) for source in report.reaching] == [f"{home.parent}/{file}:1"]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [('{"env": {\n  "ANTHROPIC_API_KEY": "x",\n}}', 3, "not JSON")],
)
def test_broken_settings_are_named_with_the_line(home: Path, text: str, line: int, reason: str) -> None:
    put(home, **{".claude/settings.json": text})
    [problem] = look(home).problems
    assert (problem.path, problem.line) == (home / ".claude/settings.json", line)
    assert reason in problem.reason


def test_systemd_s_user_manager_is_asked(home: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >&2\necho LANG=C\necho "ANTHROPIC_API_KEY={KEY}"\n')
    program.chmod(0o755)
    environ = {"PATH": f"{program.parent}:/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)}
    report = look(home, environ, ask=True)
    assert {verdict.billed for verdict in report.verdicts} == {"api_key"}
    assert [source.via for source in report.reaching] == ["manager"]


def test_macos_management_profiles_are_settings(home: Path) -> None:
    profile = home.parent / "root/Library/Managed Preferences/com.anthropic.claudecode.plist"
    profile.parent.mkdir(parents=True)
    profile.write_bytes(plistlib.dumps({"env": {"ANTHROPIC_API_KEY": KEY}}, fmt=plistlib.FMT_BINARY))
    report = look(home)
    assert {verdict.billed for verdict in report.verdicts} == {"api_key"}
    assert [source.location.path for source in report.reaching] == [profile]
    for broken in (b"not a plist", b"<?xml version='1.0'?><plist><dict"):
        profile.write_bytes(broken)
        assert look(home).problems[0].path == profile


def test_macos_login_is_in_the_keychain(home: Path) -> None:
    (home / ".claude/.credentials.json").unlink()
    put(
        home, **{"Library/Keychains/login.keychain-db": "", ".claude.json": '{"oauthAccount": {"emailAddress": "a@b"}}'}
    )
    assert {verdict.credential for verdict in look(home).verdicts} == {"login"}


def test_an_unknown_shell_of_the_operator_s_is_not_passed_over(home: Path) -> None:
    report = find(home, {"SHELL": "/usr/bin/nu", "PATH": "/nonexistent"}, root=home.parent / "root", ask=False)
    [verdict] = [each for each in report.verdicts if each.shell == "nu"]
    assert (verdict.billed, report.certain) == ("unknown", False)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({".zshrc": f"export ANTHROPIC_API_KEY='{KEY}'\n"}, ".zshrc:1"),
        ({".zshrc": f"#export ANTHROPIC_API_KEY={KEY}\n"}, ""),
        ({".zshrc": f"export ANTHROPIC_API_KEY={KEY}\nunset ANTHROPIC_API_KEY\n"}, ""),
        ({".zshrc": '[ -f ~/.a ] && . "$HOME/.a"\n', ".a": f"\nexport ANTHROPIC_API_KEY={KEY}\n"}, ".a:2"),
        ({".zshrc": ". ~/.a\n", ".a": ". ~/.zshrc\n"}, ""),
        ({".zshrc": "export ANTHROPIC_API_KEY=$(pass show x)\n"}, ".zshrc:1"),
        ({".config/fish/config.fish": f"set -gx ANTHROPIC_API_KEY {KEY}\n"}, ".config/fish/config.fish:1"),
        (
            {".config/fish/fish_variables": "SETUVAR --export ANTHROPIC_API_KEY:a\\x2db\n"},
            ".config/fish/fish_variables:1",
        ),
        ({".bashrc": f"alias claude='ANTHROPIC_API_KEY={KEY} claude'\n"}, ".bashrc:1"),
    ],
)
def test_a_reading_finds_what_stands_there_plainly(home: Path, files: dict[str, str], said: str) -> None:
    put(home, **files)
    report = look(home)
    assert [str(source.location) for source in report.reaching] == ([f"{home}/{said}"] if said else [])
    assert not report.certain
