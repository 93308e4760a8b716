"""What may run on the subscription, and what of the environment goes along. The real CLI is in tests/integration."""

from __future__ import annotations

from typing import Any

import pytest

from farmhand.core import claude
from farmhand.offline.subscription import environment, refusal

TEXT: dict[str, Any] = {"id": "t", "prompt": "p", "timeout_s": 0.0}


@pytest.mark.parametrize(
    ("task", "allowed", "code"),
    [
        (TEXT, False, "subscription_off"),
        (TEXT | {"tools": ["Read"]}, True, "subscription_text_only"),
        (TEXT | {"network": "full"}, True, "subscription_text_only"),
        (TEXT | {"schema": {}}, True, "subscription_text_only"),
    ],
)
def test_what_is_refused(task: dict[str, Any], allowed: bool, code: str) -> None:
    refused = refusal(task, allowed=allowed)
    assert refused is not None
    assert (refused.code, refused.exit_code) == (code, 5)
    assert refused.hint


def test_plain_text_is_let_through() -> None:
    assert refusal(TEXT, allowed=True) is None
    assert refusal(TEXT | {"tools": [], "network": "none", "engine": "cli"}, allowed=True) is None


@pytest.mark.parametrize(
    "name",
    [
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_CUSTOM_HEADERS",
        "ANTHROPIC_MODEL",
        "ANTHROPIC_BEDROCK_BASE_URL",
        "ANTHROPIC_VERTEX_PROJECT_ID",
        "ANTHROPIC_FOUNDRY_API_KEY",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX",
        "CLAUDE_CODE_USE_FOUNDRY",
        "CLAUDE_CODE_API_KEY_HELPER_TTL_MS",
        "CLAUDE_CODE_SIMPLE",
        "CLAUDECODE",
        "AWS_BEARER_TOKEN_BEDROCK",
        "VERTEX_BASE_URL",
        "CLOUD_ML_REGION",
        "FARMHAND_KEY_SOURCE",
    ],
)
def test_what_may_bill_somebody_does_not_go_along(name: str) -> None:
    given = {name: "x", "PATH": "/bin", "HOME": "/h", "CLAUDE_CONFIG_DIR": "/c", "HTTPS_PROXY": "http://p"}
    got = environment(given, TEXT, 60)
    assert name not in got
    assert {key: got[key] for key in given if key != name} == {key: given[key] for key in given if key != name}


def test_the_switches_are_set_whatever_the_operator_has() -> None:
    got = environment({"CLAUDE_CODE_DISABLE_ATTACHMENTS": "0", "API_TIMEOUT_MS": "1"}, TEXT | {"max_tokens": 9}, 60)
    ours = {"API_TIMEOUT_MS": "60000", "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "9"}
    assert got == claude.SWITCHES | ours | {"DISABLE_AUTO_COMPACT": "1", "DISABLE_COMPACT": "1"}
    assert got["CLAUDE_CODE_DISABLE_ATTACHMENTS"] == "1"
