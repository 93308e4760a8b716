"""Who pays for an environment, by the CLI's documented precedence and by its own word."""

from __future__ import annotations

from typing import Any

import pytest

from farmhand.billing.names import HELPER
from farmhand.billing.verdict import Location, Setting, Verdict, judge, shown, status

KEY = "sk-ant-test-first-0000000000"


def judged(env: dict[str, str], helper: str = "", said: dict[str, Any] | None = None, *, login: bool = True) -> Verdict:
    settings = {name: Setting(name, value) for name, value in env.items()}
    if helper:
        settings[HELPER] = Setting(HELPER, None, Location(None), "settings", helper)
    return judge("zsh", "interactive", settings, logged_in=login, said=said)


@pytest.mark.parametrize(
    ("env", "helper", "credential", "billed", "headers"),
    [
        ({"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_API_KEY": KEY}, "", "CLAUDE_CODE_USE_BEDROCK", "cloud", ()),
        ({"CLAUDE_CODE_USE_BEDROCK": "0"}, "", "login", "subscription", ("authorization",)),
        ({"ANTHROPIC_AUTH_TOKEN": "t"}, "", "ANTHROPIC_AUTH_TOKEN", "token", ("authorization",)),
        (
            {"ANTHROPIC_AUTH_TOKEN": "t", "ANTHROPIC_API_KEY": KEY},
            "",
            "ANTHROPIC_AUTH_TOKEN",
            "token",
            ("authorization", "x-api-key"),
        ),
        ({}, "pass show key", "apiKeyHelper", "api_key", ("authorization", "x-api-key")),
        ({"ANTHROPIC_API_KEY": KEY}, "", "ANTHROPIC_API_KEY", "api_key", ("x-api-key",)),
        ({"CLAUDE_CODE_OAUTH_TOKEN": "x"}, "", "CLAUDE_CODE_OAUTH_TOKEN", "subscription", ("authorization",)),
        (
            {"CLAUDE_CODE_OAUTH_TOKEN": "x", "ANTHROPIC_API_KEY": KEY},
            "",
            "ANTHROPIC_API_KEY",
            "api_key",
            ("x-api-key",),
        ),
        ({"CLAUDE_CODE_USE_GATEWAY": "1"}, "", "CLAUDE_CODE_USE_GATEWAY", "cloud", ()),
        ({"CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR": "3"}, "", "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR", "api_key", ()),
        ({"CLAUDE_CODE_HOST_CREDS_FILE": "/x"}, "", "CLAUDE_CODE_HOST_CREDS_FILE", "token", ()),
        ({"ANTHROPIC_PROFILE": "work"}, "", "ANTHROPIC_PROFILE", "token", ()),
        ({"ANTHROPIC_CUSTOM_HEADERS": "x-api-key: k"}, "", "ANTHROPIC_CUSTOM_HEADERS", "token", ()),
        ({"ANTHROPIC_CUSTOM_HEADERS": "x-team: k"}, "", "login", "subscription", ("authorization",)),
        ({"ANTHROPIC_API_KEY": ""}, "", "login", "subscription", ("authorization",)),
    ],
)
def test_the_documented_precedence(
    env: dict[str, str], helper: str, credential: str, billed: str, headers: tuple[str, ...]
) -> None:
    found = judged(env, helper)
    assert (found.credential, found.billed, found.headers) == (credential, billed, headers)
    assert found.metered == (billed != "subscription")


def test_a_base_url_is_metered_whoever_pays() -> None:
    for name in ("ANTHROPIC_BASE_URL", "CLAUDE_CODE_API_BASE_URL", "ANTHROPIC_UNIX_SOCKET"):
        found = judged({name: "http://127.0.0.1:1"})
        assert (found.billed, found.metered) == ("subscription", True)


def test_no_login_and_no_key_is_nobody() -> None:
    assert judged({}, login=False).billed == "none"
    assert judged({}, said={"loggedIn": False}).billed == "none"


def test_the_cli_is_believed_where_it_names_what_the_variables_do_not_show() -> None:
    found = judged({}, said={"loggedIn": True, "authMethod": "api_key", "apiKeySource": "/login managed key"})
    assert (found.billed, found.credential, found.metered) == ("api_key", "/login managed key", True)
    assert judged({}, said={"loggedIn": True, "authMethod": "third_party"}).billed == "cloud"
    assert judged({}, said={"loggedIn": True, "authMethod": "something new"}).billed == "token"


def test_the_cli_s_word_for_the_plan_makes_no_metered_variable_green() -> None:
    plan = {"loggedIn": True, "authMethod": "claude.ai"}
    assert judged({}, said=plan).billed == "subscription"
    assert judged({"CLAUDE_CODE_HOST_CREDS_FILE": "/x"}, said=plan).metered
    assert judged({"ANTHROPIC_AUTH_TOKEN": "t"}, said={"loggedIn": True, "authMethod": "oauth_token"}).billed == "token"


def test_what_a_wrapper_took_away_is_not_counted() -> None:
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_AUTH_TOKEN": "t", "ANTHROPIC_BASE_URL": "u", "A": "1"}
    assert set(shown(env, {"authMethod": "claude.ai"})) == {"ANTHROPIC_BASE_URL", "A"}
    assert set(shown(env, {"authMethod": "api_key"})) == {"ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "A"}


def test_the_cli_s_status_is_found_in_any_other_output() -> None:
    said = '{"loggedIn": true, "authMethod": "claude.ai"}'
    noise = '{"a":' * 2_000
    assert status(f"{noise} {{}} {said} }}") == {"loggedIn": True, "authMethod": "claude.ai"}
    assert status(noise) is None
