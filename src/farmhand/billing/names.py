"""The names that decide who pays for an interactive `claude`, in the CLI's documented order.

Sources: the CLI's pages "Authentication" (precedence), "Environment variables" and "Settings", read 2026-11-24, and the
names that the CLI's own program (2.1.330) looks up. The order was measured against a loopback Messages API:
tests/integration/billing repeats that.
"""

from __future__ import annotations

KEY = "ANTHROPIC_API_KEY"
TOKEN = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105 - a variable's name
HELPER = "apiKeyHelper"
OAUTH = "CLAUDE_CODE_OAUTH_TOKEN"
HEADERS = "ANTHROPIC_CUSTOM_HEADERS"
#: Values that are secrets and worth keeping: they move into the key file.
SECRETS = (KEY, TOKEN)
#: Switches to another provider, whose own credentials then pay.
CLOUDS = (
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_GATEWAY",
)
#: Names behind which a credential stands that is not the login, and who is billed for it. What a profile, a host or an
#: identity is billed to is its issuer's business; it is not known to be the plan, so it is not taken for it.
INDIRECT = {
    "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR": "api_key",
    "CLAUDE_CODE_HOST_CREDS_FILE": "token",
    "ANTHROPIC_PROFILE": "token",
    "ANTHROPIC_IDENTITY_TOKEN": "token",
    "ANTHROPIC_IDENTITY_TOKEN_FILE": "token",
    "CLAUDE_CODE_GATEWAY_TOKEN": "token",
    "CLAUDE_CODE_GATEWAY_TOKEN_FILE_DESCRIPTOR": "token",
}
#: Where requests go instead of the provider's own address: whoever runs it sees the login, or bills on its own account.
BASE_URLS = (
    "ANTHROPIC_BASE_URL",
    "CLAUDE_CODE_API_BASE_URL",
    "ANTHROPIC_BEDROCK_BASE_URL",
    "ANTHROPIC_BEDROCK_MANTLE_BASE_URL",
    "ANTHROPIC_AWS_BASE_URL",
    "ANTHROPIC_VERTEX_BASE_URL",
    "ANTHROPIC_GOOGLE_CLOUD_BASE_URL",
    "ANTHROPIC_FOUNDRY_BASE_URL",
    "ANTHROPIC_UNIX_SOCKET",
)
#: Everything that must not reach an interactive `claude` which is to run on the subscription.
METERED = (*CLOUDS, TOKEN, KEY, *INDIRECT, *BASE_URLS, HEADERS)
WATCHED = (*METERED, OAUTH)
#: All of them for a regular expression, the longer ones first.
ANY = "|".join(sorted(WATCHED, key=len, reverse=True))
_TRUE = frozenset({"1", "true", "yes", "on"})
_CREDENTIAL_HEADERS = ("x-api-key:", "authorization:")


def is_on(value: str) -> bool:
    """Whether the CLI takes a switch's value for on (measured: 1, true, yes, on in any case)."""
    return value.strip().lower() in _TRUE


def counts(name: str, value: str | None) -> bool:
    """Whether this value of a watched name decides anything. None: a value that only running something would tell."""
    if value is None:
        return True
    if name in CLOUDS:
        return is_on(value)
    if name == HEADERS:
        return any(header in value.lower().replace(" ", "") for header in _CREDENTIAL_HEADERS)
    return value != ""
