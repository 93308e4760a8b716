"""The environment of every program that this process starts."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping

from .keys import KEY

#: Matches credentials and switches of other tools by name. Any key or login token is also found by its value, because
#: with the key source `env:NAME` it may be in any variable.
_CREDENTIAL_NAME = re.compile(r"(ANTHROPIC|CLAUDE)_|CLAUDECODE$|AWS_BEARER_TOKEN_BEDROCK$", re.IGNORECASE)
_SETTING = re.compile(r"FARMHAND_")


def scrubbed(
    environ: Mapping[str, str] | None = None, *, settings: bool = False, keep: Container[str] = ()
) -> dict[str, str]:
    """Return `environ` (None: this process's own environment) without credentials, for a program that needs none.

    Keep the FARMHAND_* settings only with `settings`. Keep the names in `keep` whatever their value.
    """
    return {
        name: value
        for name, value in (os.environ if environ is None else environ).items()
        if name in keep
        or not (_CREDENTIAL_NAME.match(name) or KEY.search(value) or (not settings and _SETTING.match(name)))
    }
