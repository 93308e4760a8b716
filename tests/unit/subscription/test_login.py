from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.claude import login_path
from farmhand.core.errors import NotConfigured
from farmhand.subscription.login import find_login

NOW = 1_800_000_000.0
DAY = 86400


def write(directory: Path, held: Any) -> dict[str, str]:
    (directory / ".credentials.json").write_text(held if isinstance(held, str) else json.dumps(held))
    return {"CLAUDE_CONFIG_DIR": str(directory)}


def oauth(**more: Any) -> dict[str, Any]:
    return {"claudeAiOauth": {"accessToken": "sk-ant-oat01-x", "subscriptionType": "max", **more}}


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert login_path({}) == Path("/h/.claude/.credentials.json")
    assert login_path({"CLAUDE_CONFIG_DIR": "/c"}) == Path("/c/.credentials.json")


def test_a_login_that_renews_itself_lasts_as_long_as_its_refresh_token(tmp_path: Path) -> None:
    ms = int(NOW * 1000)
    environ = write(tmp_path, oauth(refreshToken="r", expiresAt=ms - 1, refreshTokenExpiresAt=ms + 9 * DAY * 1000 + 5))
    found = find_login(environ, now=NOW)
    assert (found.plan, found.renews, found.days_left(NOW)) == ("max", True, 9)
    environ = write(tmp_path, oauth(refreshToken="r", expiresAt=ms - 1))
    assert find_login(environ, now=NOW).days_left(NOW) is None


def test_a_login_without_a_refresh_token_lasts_as_long_as_it_says(tmp_path: Path) -> None:
    environ = write(tmp_path, oauth(expiresAt=int((NOW + 2.5 * DAY) * 1000)))
    assert find_login(environ, now=NOW).days_left(NOW) == 2
    with pytest.raises(NotConfigured, match="ended on 2027-01-17") as caught:
        find_login(environ, now=NOW + 3 * DAY)
    assert caught.value.code == "login_expired"
    assert "/login" in caught.value.hint


def test_an_ended_refresh_token_is_an_ended_login(tmp_path: Path) -> None:
    environ = write(tmp_path, oauth(refreshToken="r", expiresAt=9e15, refreshTokenExpiresAt=1000))
    with pytest.raises(NotConfigured, match="ended on 1970-01-01"):
        find_login(environ, now=NOW)


@pytest.mark.parametrize(
    "held",
    [
        "",
        "[]",
        "{}",
        pytest.param("[" * 200_000, id="deep"),
        {"claudeAiOauth": None},
        {"claudeAiOauth": {"accessToken": ""}},
    ],
)
def test_a_file_without_a_login(tmp_path: Path, held: Any) -> None:
    with pytest.raises(NotConfigured, match="holds no login") as caught:
        find_login(write(tmp_path, held))
    assert caught.value.code == "no_login"


def test_no_file_and_an_unreadable_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(NotConfigured, match="does not exist"):
        find_login({"CLAUDE_CONFIG_DIR": str(tmp_path)})
    (tmp_path / ".credentials.json").write_bytes(b"\xff")
    with pytest.raises(NotConfigured, match="not UTF-8"):
        find_login({"CLAUDE_CONFIG_DIR": str(tmp_path)})


def test_a_token_in_the_environment_is_a_login(tmp_path: Path) -> None:
    assert find_login({"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-x", "CLAUDE_CONFIG_DIR": str(tmp_path)}).where == (
        "CLAUDE_CODE_OAUTH_TOKEN"
    )


@pytest.mark.parametrize(("status", "there"), [(0, True), (44, False)])
def test_the_keychain_of_macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, there: bool) -> None:
    program = tmp_path / "security"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "platform", "darwin")
    environ = {"CLAUDE_CONFIG_DIR": str(tmp_path / "none")}
    if there:
        assert find_login(environ).where == "the keychain"
    else:
        with pytest.raises(NotConfigured, match="the keychain has no"):
            find_login(environ)
    assert (tmp_path / "asked").read_text() == "find-generic-password -s Claude Code-credentials\n"
