"""What `find` says of homes with all kinds of start-up files. The real shells agree: tests/integration/billing."""

from __future__ import annotations

import hashlib
import json
import plistlib
from pathlib import Path

import pytest

from farmhand.billing import Report, find
from farmhand.wire.keys import fingerprint

KEY = "sk-ant-test-first-0000000000"
OTHER = "sk-ant-test-second-000000000"
FISH = ".config/fish/config.fish"
FISH_CLAUDE = ".config/fish/functions/claude.fish"
MANAGED = '{{"env":{{"ANTHROPIC_API_KEY":"{key}"}}}}'
INTERACTIVE = ["interactive", "login interactive"]
LOGIN = ["login", "login interactive"]
ALL = ["login", *INTERACTIVE]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    (directory / ".claude").mkdir(parents=True)
    login = {"claudeAiOauth": {"accessToken": "sk-ant-oat01-x", "subscriptionType": "max"}}
    (directory / ".claude/.credentials.json").write_text(json.dumps(login))
    return directory


def put(home: Path, **files: str) -> None:
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def look(home: Path, environ: dict[str, str] | None = None, cwd: Path | None = None) -> Report:
    return find(home, environ or {}, cwd, root=home.parent / "root", ask=False)


def billed(report: Report, shell: str) -> dict[str, str]:
    return {verdict.mode: verdict.billed for verdict in report.verdicts if verdict.shell == shell}


def metered(report: Report, shell: str) -> list[str]:
    return [verdict.mode for verdict in report.verdicts if verdict.shell == shell and verdict.metered]


def test_nothing_is_found_in_a_clean_home(home: Path) -> None:
    put(home, **{".zshrc": "export EDITOR=vi\n", ".bashrc": "alias ll='ls -l'\n", FISH: "set -gx EDITOR vi\n"})
    report = look(home)
    assert not report.metered
    assert not report.sources
    assert {verdict.billed for verdict in report.verdicts} == {"subscription"}
    assert report.line() == "no metered credential reaches an interactive claude; the subscription pays"


@pytest.mark.parametrize(
    ("shell", "file", "text", "modes"),
    [
        ("zsh", ".zshenv", "export ANTHROPIC_API_KEY={key}\n", ALL),
        ("zsh", ".zprofile", "export ANTHROPIC_API_KEY='{key}'\n", LOGIN),
        ("zsh", ".zshrc", "export ANTHROPIC_API_KEY={key}\n", INTERACTIVE),
        ("zsh", ".zlogin", "typeset -gx ANTHROPIC_API_KEY={key}\n", LOGIN),
        ("zsh", ".zshrc", "setopt allexport\nANTHROPIC_API_KEY={key}\nunsetopt allexport\n", INTERACTIVE),
        ("bash", ".bashrc", 'export ANTHROPIC_API_KEY="{key}"\n', ["interactive"]),
        (
            "bash",
            ".bash_profile",
            "ANTHROPIC_API_KEY={key}; export ANTHROPIC_API_KEY\n",
            ["login", "login interactive"],
        ),
        ("bash", ".bash_profile", "[ -f ~/.bashrc ] && . ~/.bashrc\n", []),
        ("bash", ".bashrc", "set -a\nANTHROPIC_API_KEY={key}\nset +a\n", ["interactive"]),
        ("bash", ".bashrc", "ANTHROPIC_API_KEY={key}\n", []),
        ("bash", ".bashrc", "export ANTHROPIC_API_KEY={key}\nunset ANTHROPIC_API_KEY\n", []),
        ("bash", ".bashrc", "export ANTHROPIC_API_KEY={key}\nexport -n ANTHROPIC_API_KEY\n", []),
        ("bash", ".bashrc", "export ANTHROPIC_API_KEY=\n", []),
        ("bash", ".bashrc", "if false; then export ANTHROPIC_API_KEY={key}; fi\n", []),
        ("bash", ".bashrc", "if uname | grep -q Linux; then\n export ANTHROPIC_API_KEY={key}\nfi\n", ["interactive"]),
        ("bash", ".bashrc", "(export ANTHROPIC_API_KEY={key})\n", []),
        ("bash", ".bashrc", "cat <<EOF\nexport ANTHROPIC_API_KEY={key}\nEOF\n", []),
        ("bash", ".bashrc", "echo 'export ANTHROPIC_API_KEY={key}' # export ANTHROPIC_API_KEY={key}\n", []),
        ("bash", ".bashrc", "key() {{ export ANTHROPIC_API_KEY={key}; }}\nkey\n", ["interactive"]),
        ("bash", ".bashrc", "key() {{ export ANTHROPIC_API_KEY={key}; }}\n", []),
        ("bash", ".bashrc", "alias claude='ANTHROPIC_API_KEY={key} claude'\n", ["interactive"]),
        ("bash", ".bashrc", 'claude() {{ ANTHROPIC_API_KEY={key} command claude "$@"; }}\n', ["interactive"]),
        ("bash", ".bashrc", 'claude() {{ env ANTHROPIC_API_KEY={key} claude "$@"; }}\n', ["interactive"]),
        ("bash", ".bashrc", 'claude() {{ ANTHROPIC_API_KEY= command claude "$@"; }}\n', []),
        ("bash", ".bashrc", "eval 'export ANTHROPIC_API_KEY={key}'\n", ["interactive"]),
        ("bash", ".profile", "export ANTHROPIC_API_KEY={key}\n", LOGIN),
        ("sh", ".profile", "export ANTHROPIC_API_KEY={key}\n", LOGIN),
        ("fish", FISH, "set -gx ANTHROPIC_API_KEY {key}\n", ALL),
        ("fish", FISH, "set -Ux ANTHROPIC_API_KEY '{key}'\n", ALL),
        ("fish", FISH, "set --global --export ANTHROPIC_API_KEY {key}\n", ALL),
        ("fish", FISH, "export ANTHROPIC_API_KEY={key}\n", ALL),
        ("fish", FISH, "set -g ANTHROPIC_API_KEY {key}\n", []),
        ("fish", FISH, "set -gx ANTHROPIC_API_KEY {key}\nset -e ANTHROPIC_API_KEY\n", []),
        ("fish", FISH, "if status is-interactive\n  set -gx ANTHROPIC_API_KEY {key}\nend\n", INTERACTIVE),
        ("fish", FISH, "status is-login; and set -gx ANTHROPIC_API_KEY {key}\n", LOGIN),
        ("fish", FISH, "function claude\n  ANTHROPIC_API_KEY={key} command claude $argv\nend\n", ALL),
        ("fish", FISH, "alias claude='ANTHROPIC_API_KEY={key} command claude'\n", ALL),
        ("fish", ".config/fish/conf.d/key.fish", "set -x ANTHROPIC_API_KEY {key}\n", ALL),
        (
            "fish",
            FISH_CLAUDE,
            "function claude\n env ANTHROPIC_API_KEY={key} claude\nend\n",
            ALL,
        ),
        ("fish", ".config/fish/fish_variables", "SETUVAR --export ANTHROPIC_API_KEY:{key}\n", ALL),
        ("fish", ".config/fish/fish_variables", "SETUVAR ANTHROPIC_API_KEY:{key}\n", []),
    ],
)
def test_each_shell_reads_its_own_files(home: Path, shell: str, file: str, text: str, modes: list[str]) -> None:
    put(home, **{file: text.format(key=KEY)})
    report = look(home)
    assert metered(report, shell) == modes
    for verdict in report.verdicts:
        if verdict.metered:
            assert (verdict.billed, verdict.fingerprint) == ("api_key", fingerprint(KEY))
    assert KEY not in json.dumps(report.as_dict()) + repr(report)


@pytest.mark.parametrize(
    "line",
    [
        "source ~/.secrets/keys",
        '. "$HOME/.secrets/keys"',
        '[ -f "${HOME}/.secrets/keys" ] && . "${HOME}/.secrets/keys"',
        "for f in ~/.secrets/k*; do . $f; done",
        "D=~/.secrets; source $D/keys",
        "test -r ~/.secrets/keys && source ~/.secrets/keys || true",  # a line of a user's file, never run
        "set -a; . .secrets/plain; set +a",
        "export $(grep -v '^#' ~/.secrets/plain | xargs)",
        'while read -r line; do export "$line"; done < ~/.secrets/plain',
    ],
)
def test_what_a_file_sources_is_followed(home: Path, line: str) -> None:
    put(home, **{".secrets/keys": f"\nexport ANTHROPIC_API_KEY={KEY}\n"})
    put(home, **{".secrets/plain": f"A=1\nANTHROPIC_API_KEY={KEY}\n"})
    put(home, **{".bashrc": f"# first\n{line}\n"})
    report = look(home)
    [source] = report.reaching
    assert source.place.line == 2
    assert source.place.path is not None
    assert source.place.path.parent.name == ".secrets"
    assert (str(source.through), source.shells) == (f"{home}/.bashrc:2", ["bash interactive"])


def test_settings_win_over_the_environment_and_local_over_user(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    put(home, **{".claude/settings.json": json.dumps({"env": {"ANTHROPIC_API_KEY": KEY}}, indent=1)})
    put(project, **{".claude/settings.local.json": json.dumps({"env": {"ANTHROPIC_API_KEY": OTHER}})})
    environ = {"ANTHROPIC_API_KEY": "sk-ant-test-third-0000000000"}
    assert {v.fingerprint for v in look(home, environ).verdicts} == {fingerprint(KEY)}
    report = look(home, environ, project)
    assert {v.fingerprint for v in report.verdicts} == {fingerprint(OTHER)}
    assert [str(source.place) for source in report.reaching if source.place.path] == [
        f"{home}/.claude/settings.json:3",
        f"{project}/.claude/settings.local.json:1",
    ]


def test_an_empty_value_in_the_settings_takes_the_key_away(home: Path) -> None:
    put(home, **{".zshenv": f"export ANTHROPIC_API_KEY={KEY}\n"})
    put(home, **{".claude/settings.json": '{"env":{"ANTHROPIC_API_KEY":""}}'})
    assert billed(look(home), "zsh") == dict.fromkeys(ALL, "subscription")


@pytest.mark.parametrize(
    ("environ", "helper", "credential", "who", "says", "headers"),
    [
        ({"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_API_KEY": KEY}, "", "CLAUDE_CODE_USE_BEDROCK", "cloud", "key", ()),
        ({"CLAUDE_CODE_USE_BEDROCK": "0"}, "", "login", "subscription", "none", ("authorization",)),
        ({"ANTHROPIC_AUTH_TOKEN": "t"}, "", "ANTHROPIC_AUTH_TOKEN", "token", "none", ("authorization",)),
        (
            {"ANTHROPIC_AUTH_TOKEN": "t", "ANTHROPIC_API_KEY": KEY},
            "",
            "ANTHROPIC_AUTH_TOKEN",
            "token",
            "key",
            ("authorization", "x-api-key"),
        ),
        ({}, "pass show key", "apiKeyHelper", "api_key", "apiKeyHelper", ("authorization", "x-api-key")),
        ({"ANTHROPIC_API_KEY": KEY}, "", "ANTHROPIC_API_KEY", "api_key", "key", ("x-api-key",)),
        (
            {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-y"},
            "",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "subscription",
            "none",
            ("authorization",),
        ),
    ],
)
def test_the_documented_precedence(
    home: Path, environ: dict[str, str], helper: str, credential: str, who: str, says: str, headers: tuple[str, ...]
) -> None:
    if helper:
        put(home, **{".claude/settings.json": json.dumps({"apiKeyHelper": helper})})
    for verdict in look(home, environ).verdicts:
        assert (verdict.credential, verdict.billed, verdict.headers) == (credential, who, headers)
        assert verdict.api_key_source == says.replace("key", "ANTHROPIC_API_KEY", says == "key")


def test_no_login_and_no_key_is_nobody(home: Path) -> None:
    (home / ".claude/.credentials.json").unlink()
    assert {verdict.billed for verdict in look(home).verdicts} == {"none"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("root/etc/environment", "ANTHROPIC_API_KEY={key}\n"),
        ("root/etc/environment", 'ANTHROPIC_API_KEY="{key}"\n'),
        ("home/.pam_environment", "ANTHROPIC_API_KEY DEFAULT={key}\n"),
        ("home/.config/environment.d/50-key.conf", "ANTHROPIC_API_KEY={key}\n"),
        ("root/etc/claude-code/managed-settings.json", MANAGED),
        ("root/etc/claude-code/managed-settings.d/a.json", MANAGED),
        (
            "root/Library/Application Support/ClaudeCode/managed-settings.json",
            '{{"env":{{"ANTHROPIC_API_KEY":"{key}"}}}}',
        ),
    ],
)
def test_the_systems_own_files_reach_every_shell(home: Path, file: str, text: str) -> None:
    put(home.parent, **{file: text.format(key=KEY)})
    report = look(home)
    assert {verdict.billed for verdict in report.verdicts} == {"api_key"}
    assert [str(source.place) for source in report.reaching] == [f"{home.parent}/{file}:1"]


def test_envrc_counts_where_direnv_is_hooked_in_and_the_file_allowed(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    put(project, **{".envrc": "dotenv\n", ".env": f"ANTHROPIC_API_KEY={KEY}\n"})
    put(home, **{".zshrc": 'eval "$(direnv hook zsh)"\n'})
    report = look(home, {}, project)
    assert not report.metered
    assert {source.name for source in report.sources} == {"ANTHROPIC_API_KEY"}
    allowed = hashlib.sha256(f"{project}/.envrc\n".encode() + b"dotenv\n").hexdigest()
    put(home, **{f".local/share/direnv/allow/{allowed}": ""})
    report = look(home, {}, project)
    assert metered(report, "zsh") == INTERACTIVE
    assert metered(report, "bash") == []


@pytest.mark.parametrize(
    ("file", "text", "line", "reason"),
    [
        (".zshrc", "\nexport ANTHROPIC_API_KEY='sk-ant-test-open-00\n", 2, "a single quote is never closed"),
        (".bashrc", 'A=1\nexport ANTHROPIC_API_KEY="sk-ant-test-open-00\n', 2, "a double quote is never closed"),
        (".bashrc", "if true; then\nexport ANTHROPIC_API_KEY=x\n", 3, "'fi' is missing at the end of the file"),
        (".bashrc", "export ANTHROPIC_API_KEY=x\nfi\n", 2, "'fi' without its beginning"),
        (".bashrc", "cat <<EOF\nANTHROPIC_API_KEY=x\n", 1, "a here-document is never closed"),
        (FISH, "if true\n  set -gx ANTHROPIC_API_KEY x\n", 1, "a block is never closed with 'end'"),
        (".claude/settings.json", '{"env": {\n  "ANTHROPIC_API_KEY": "x",\n}}', 3, "not JSON"),
    ],
)
def test_a_broken_file_is_named_with_its_line(home: Path, file: str, text: str, line: int, reason: str) -> None:
    put(home, **{file: text})
    [problem] = look(home).problems
    assert (problem.path, problem.line) == (home / file, line)
    assert reason in problem.reason
    assert "sk-ant" not in problem.reason


def test_systemd_s_user_manager_is_asked(home: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >&2\necho LANG=C\necho "ANTHROPIC_API_KEY={KEY}"\n')
    program.chmod(0o755)
    environ = {"PATH": f"{program.parent}:/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)}
    report = find(home, environ, None, root=tmp_path / "root")
    assert {verdict.billed for verdict in report.verdicts} == {"api_key"}
    assert [source.via for source in report.reaching] == ["manager"]


def test_macos_management_profiles_are_settings(home: Path) -> None:
    profile = home.parent / "root/Library/Managed Preferences/com.anthropic.claudecode.plist"
    profile.parent.mkdir(parents=True)
    profile.write_bytes(plistlib.dumps({"env": {"ANTHROPIC_API_KEY": KEY}}, fmt=plistlib.FMT_BINARY))
    report = look(home)
    assert {verdict.billed for verdict in report.verdicts} == {"api_key"}
    assert [source.place.path for source in report.reaching] == [profile]
    profile.write_bytes(b"not a plist")
    assert look(home).problems[0].path == profile


def test_macos_login_is_in_the_keychain(home: Path) -> None:
    (home / ".claude/.credentials.json").unlink()
    put(
        home, **{"Library/Keychains/login.keychain-db": "", ".claude.json": '{"oauthAccount": {"emailAddress": "a@b"}}'}
    )
    assert {verdict.credential for verdict in look(home).verdicts} == {"login"}


def test_the_wrapper_from_before_is_named(home: Path) -> None:
    put(home, **{".zshrc": 'alias farmhand=ls\n\nclaude-cheap() {\n  ssh box claude -p "$1"\n}\n'})
    assert look(home).hidden == [f"claude-cheap in {home}/.zshrc:3", f"farmhand in {home}/.zshrc:1"]
