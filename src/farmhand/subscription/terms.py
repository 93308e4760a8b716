"""What the provider says of programs on a plan, and the risk: said wherever that is turned on. docs/gateway.md#terms"""

from __future__ import annotations

#: Two quotations, read on 2026-11-28 in https://code.claude.com/docs/en/legal-and-compliance.
QUOTED = (
    'The provider says that developers "should use API key authentication", and that it may enforce its terms '
    '"without prior notice".'
)
#: What it draws on. `claude -p` bills extra usage with an ordinary answer, where that is switched on.
DRAWS = "claude -p draws on your plan's own limits and past them, where switched on, on paid extra usage."
RISK = (
    "Its staff have called third-party harnesses on plan logins prohibited, so the gateway's subscription is riskier "
    "than the fallback of claude-cheap."
)
TERMS = f"{QUOTED} {DRAWS} {RISK}"
