"""The environment of the CLI, built from nothing: what is not named here does not exist for it.

So neither a metered key nor another base URL can reach it, whatever the operator's shell has.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from farmhand.core import claude
from farmhand.core.keys import KEY

#: How the network is reached, and the language. Programs read the first three in small letters as well.
_CARRIED = re.compile(r"(?i:HTTPS_PROXY|NO_PROXY|SSL_CERT_FILE)|NODE_EXTRA_CA_CERTS|LANG|LC_[A-Z]+|TZ|TMPDIR")
#: A second request to the model that nobody asked for is one more on the plan.
_SWITCHES = claude.SWITCHES | {"DISABLE_AUTO_COMPACT": "1", "DISABLE_COMPACT": "1"}
#: The CLI's own name for a login's token.
TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"  # noqa: S105  (a name)


def from_nothing(
    environ: Mapping[str, str],
    own: Mapping[str, str],
    *,
    keep: Collection[str] = (),
    timeout_s: float,
    max_tokens: int | None = None,
) -> dict[str, str]:
    """Return what the CLI gets: of `environ` the network, the language and the names in `keep`, and `own`.

    `timeout_s` is the most for a request to the API. A value with a key in it stays here unless `keep` names it.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name in keep or (_CARRIED.fullmatch(name) and not KEY.search(value))
    }
    limit = {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(max_tokens)} if max_tokens is not None else {}
    return kept | _SWITCHES | limit | {"API_TIMEOUT_MS": str(int(timeout_s * 1000))} | dict(own)
