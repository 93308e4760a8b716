"""Reading and judging: what is refused before any network, and what is left on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farmhand.aws.credentials.credential import read
from farmhand.core.errors import FarmhandError, NotConfigured, Refused, UsageError
from farmhand.core.settings import Settings
from tests.unit.aws.conftest import KEY, REFRESH, TOKEN, login, private

NOW = 1_800_000_000.0
HOUR_MS = 3_600_000
ALLOWED = Settings(allow_subscription_cloud=True)


def in_ms(hours: float) -> float:
    return NOW * 1000 + hours * HOUR_MS


def test_a_login_leaves_its_refresh_token_and_all_else_here(tmp_path: Path) -> None:
    path = login(tmp_path / "login.json", in_ms(3.2), refreshTokenExpiresAt=in_ms(600), organizationUuid="org")
    found = read("login", str(path), ALLOWED, now=NOW)
    assert json.loads(found.value)["claudeAiOauth"] == {
        "accessToken": TOKEN,
        "expiresAt": in_ms(3.2),
        "subscriptionType": "max",
    }
    assert REFRESH not in found.value
    assert "mcp" not in found.value
    assert found.expires_at == in_ms(3.2) / 1000
    [note] = found.notes
    assert "logs nobody out" in note
    assert "in 3 h 12 min" in note
    assert TOKEN not in repr(found)


def test_the_usual_login_file_and_one_that_a_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = login(tmp_path / ".claude" / ".credentials.json", in_ms(3))
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(path.parent))
    usual = read("login", "", ALLOWED, now=NOW)
    assert read("login", f"command:cat {path}", ALLOWED, now=NOW).value == usual.value, "the keychain's way on macOS"
    assert read("login", f"file:{path}", ALLOWED, now=NOW).digest == usual.digest


def test_a_setup_token_lasts_a_year_unless_its_end_is_told(tmp_path: Path) -> None:
    path = private(tmp_path / "t.env", f"CLAUDE_CODE_OAUTH_TOKEN={TOKEN}\n")
    found = read("setup-token", f"file:{path}", ALLOWED, now=NOW)
    assert (found.expires_at, found.stated) == (NOW + 365 * 86400, False)
    told = read("setup-token", f"file:{path}", ALLOWED, expires="2027-03-01", now=NOW)
    assert (told.expires_at, told.stated) == (1803859200.0, True)
    assert told.digest == found.digest
    assert "copied from two lines" in found.notes[0], "claude-code#54738"
    whole = private(tmp_path / "whole.env", f"CLAUDE_CODE_OAUTH_TOKEN={TOKEN}{'x' * 69}\n")
    assert read("setup-token", f"file:{whole}", ALLOWED, now=NOW).notes == ()


def test_a_refresh_token_beside_it_is_left_here_when_asked_for(tmp_path: Path) -> None:
    text = f"CLAUDE_CODE_OAUTH_TOKEN={TOKEN}\nCLAUDE_CODE_OAUTH_REFRESH_TOKEN={REFRESH}\n"
    path = private(tmp_path / "t.env", text)
    with pytest.raises(Refused, match="must not leave this machine"):
        read("setup-token", f"file:{path}", ALLOWED, now=NOW)
    assert read("setup-token", f"file:{path}", ALLOWED, without_refresh_token=True, now=NOW).value == TOKEN


def test_the_key_comes_from_its_usual_source(tmp_path: Path) -> None:
    path = private(tmp_path / "repos.env", f"ANTHROPIC_API_KEY={KEY}\nGIT_TOKEN=ghp_0123456789\n")
    assert read("key", "", Settings(key_source=f"file:{path}"), now=NOW).value == KEY
    assert read("git", f"file:{path}", Settings(), now=NOW).value == "ghp_0123456789"


def held(**fields: object) -> str:
    return json.dumps({"claudeAiOauth": fields})


#: kind, what the file has, source ("" is the file), what is wrong, error
JUDGED = [
    ("key", f"K={TOKEN}", "#K", "a token of a plan and no key", Refused),
    ("key", f"K={REFRESH}", "#K", "a refresh token", Refused),
    ("key", "K=sk-ant-admin01-test-000000000000", "#K", "an Admin key and no key", Refused),
    ("key", "K=sk-ant-x", "#K", "too short", NotConfigured),
    ("key", "K='sk-ant-test-credential-0000 '", "#K", "white space", NotConfigured),
    ("key", '{"claudeAiOauth": {"refreshToken": "x"}}', "", "a login file of the CLI", Refused),
    ("setup-token", f"CLAUDE_CODE_OAUTH_TOKEN={KEY}", "", "a metered key and no setup-token", Refused),
    ("setup-token", f"CLAUDE_CODE_OAUTH_TOKEN={TOKEN[:20]}\n{TOKEN[20:]}", "", "line 2", NotConfigured),
    ("setup-token", f"CLAUDE_CODE_OAUTH_TOKEN={TOKEN}#state", "", "characters other than", NotConfigured),
    ("setup-token", f"CLAUDE_CODE_OAUTH_TOKEN={REFRESH}", "", "a refresh token", Refused),
    ("git", f"GIT_TOKEN={KEY}", "", "a metered key and no token for git", Refused),
    ("git", "GIT_TOKEN=https://me:token@github.com", "", "not one word", NotConfigured),
    ("git", "GIT_TOKEN=ghr_0123456789", "", "a refresh token of GitHub", Refused),
    ("git", "GIT_TOKEN=short", "", "not one word", NotConfigured),
    ("git", "GIT_TOKEN='two words of it'", "", "not one word", NotConfigured),
    ("login", "not json", "", "not a login file", NotConfigured),
    ("login", "[]", "", "not a login file", NotConfigured),
    ("login", '{"claudeAiOauth": []}', "", "not a login file", NotConfigured),
    ("login", held(accessToken="", refreshToken="", expiresAt=0), "", "no login", NotConfigured),
    ("login", held(accessToken=KEY, expiresAt=9e12), "", "not a token", Refused),
    ("login", held(accessToken=TOKEN), "", "when the login ends", Refused),
    ("login", held(accessToken=TOKEN, expiresAt="x"), "", "when the login ends", Refused),
    ("login", held(accessToken=TOKEN, expiresAt=True), "", "when the login", Refused),
    ("login", held(accessToken=TOKEN, expiresAt=in_ms(-1)), "", "expired", Refused),
    ("login", held(accessToken=TOKEN, expiresAt=in_ms(0.4)), "", "24 min", Refused),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "name", "why", "error"), JUDGED)
def test_judged(tmp_path: Path, kind: str, text: str, name: str, why: str, error: type[FarmhandError]) -> None:
    path = private(tmp_path / "given", text)
    with pytest.raises(error, match=why) as caught:
        read(kind, f"file:{path}{name}", ALLOWED, now=NOW)
    line = str(caught.value)
    assert "\n" not in line
    assert not [secret for secret in (KEY, TOKEN, REFRESH, TOKEN[14:]) if secret in line]


def test_30_minutes_are_enough_for_a_login(tmp_path: Path) -> None:
    assert read("login", str(login(tmp_path / "l", in_ms(0.5))), ALLOWED, now=NOW).kind == "login"


@pytest.mark.parametrize("kind", ["setup-token", "login"])
def test_a_credential_of_the_plan_needs_the_setting_and_is_not_even_read(tmp_path: Path, kind: str) -> None:
    with pytest.raises(Refused, match="2026-11-24") as caught:
        read(kind, f"file:{tmp_path}/nothing", Settings(), now=NOW)
    assert "docs/subscription.md" in caught.value.hint
    assert caught.value.exit_code == 5


def test_how_it_is_asked_for(tmp_path: Path) -> None:
    for wrong in (("nothing", ""), ("key", KEY), ("git", "")):
        with pytest.raises(UsageError) as caught:
            read(*wrong, Settings(), now=NOW)
        assert KEY not in str(caught.value)
    with pytest.raises(UsageError, match="says itself"):
        read("login", "", ALLOWED, expires="2027-01-01", now=NOW)
    with pytest.raises(UsageError, match="not a day"):
        read("key", "", Settings(), expires="soon", now=NOW)
    with pytest.raises(Refused, match="has expired"):
        read("key", "", Settings(), expires="2026-01-01", now=NOW)
    path = login(tmp_path / "l", in_ms(3))
    path.chmod(0o644)
    with pytest.raises(NotConfigured, match="others could read it"):
        read("login", str(path), ALLOWED, now=NOW)
