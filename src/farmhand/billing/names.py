"""The names that decide which account an interactive `claude` is billed to, in the CLI's documented order.

Sources: the CLI's pages "Authentication" (precedence), "Environment variables" and "Settings", read 2026-11-24, and the
names that the CLI's program (2.1.330) looks up. The order was measured with a loopback Messages API;
tests/integration/billing repeats that.
"""

from __future__ import annotations

KEY = "ANTHROPIC_API_KEY"
TOKEN = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105 - a variable's name
HELPER = "apiKeyHelper"
OAUTH = "CLAUDE_CODE_OAUTH_TOKEN"
HEADERS = "ANTHROPIC_CUSTOM_HEADERS"
#: Secret values worth keeping: they move to the key file.
SECRETS = (KEY, TOKEN)
#: Switches to another provider, whose own credentials are then billed.
CLOUDS = (
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_GATEWAY",
)
#: Names for a credential other than the login, and the account billed for it. The issuer decides what a profile, a host
#: or an identity is billed to. It is not known to be the plan, so it is not treated as the plan.
INDIRECT = {
    "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR": "api_key",
    "CLAUDE_CODE_HOST_CREDS_FILE": "token",
    "ANTHROPIC_PROFILE": "token",
    "ANTHROPIC_IDENTITY_TOKEN": "token",
    "ANTHROPIC_IDENTITY_TOKEN_FILE": "token",
    "CLAUDE_CODE_GATEWAY_TOKEN": "token",
    "CLAUDE_CODE_GATEWAY_TOKEN_FILE_DESCRIPTOR": "token",
}
#: Other addresses for requests than the provider's. Their operator sees the login, or bills its own account.
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
#: All names that must not reach an interactive `claude` on the subscription.
METERED = (*CLOUDS, TOKEN, KEY, *INDIRECT, *BASE_URLS, HEADERS)
WATCHED = (*METERED, OAUTH)
#: All names as a regular expression, the longer ones first.
ANY = "|".join(sorted(WATCHED, key=len, reverse=True))
#: The values of a switch that the CLI treats as on (measured), in any case.
_TRUE = frozenset({"1", "true", "yes", "on"})
_CREDENTIAL_HEADERS = ("x-api-key:", "authorization:")


def counts(name: str, value: str | None) -> bool:
    """Return whether this value of a watched name has an effect. None is a value known only by running something."""
    if value is None:
        return True
    if name in CLOUDS:
        return value.strip().lower() in _TRUE
    if name == HEADERS:
        return any(header in value.lower().replace(" ", "") for header in _CREDENTIAL_HEADERS)
    return value != ""
