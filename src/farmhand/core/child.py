"""The environment of every program that is started from here."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping

from .keys import KEY

#: Credentials and switches of other tools by their names, and any key or login token by its look: `env:NAME` as key
#: source means that it may be anywhere.
_CREDENTIAL_NAME = re.compile(r"(ANTHROPIC|CLAUDE)_|CLAUDECODE$|AWS_BEARER_TOKEN_BEDROCK$", re.IGNORECASE)
_SETTING = re.compile(r"FARMHAND_")


def scrubbed(
    environ: Mapping[str, str] | None = None, *, settings: bool = False, keep: Container[str] = ()
) -> dict[str, str]:
    """The environment for a program that needs no credential: `environ` (None: this process's own) without any.

    The FARMHAND_* settings stay only with `settings`; the names in `keep` stay whatever they hold.
    """
    return {
        name: value
        for name, value in (os.environ if environ is None else environ).items()
        if name in keep
        or not (_CREDENTIAL_NAME.match(name) or KEY.search(value) or (not settings and _SETTING.match(name)))
    }
