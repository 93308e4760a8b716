"""What must hold before the CLI is asked anything: it is there, new enough, logged in to a plan, and bills nobody else.

None of these checks sends a request to a model.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from farmhand.core.errors import NotConfigured, Refused
from farmhand.core.keys import redact
from farmhand.subscription.login import FIX

#: The authentication methods of `claude auth status` that use a plan.
PLAN = frozenset({"claude.ai", "oauth_token"})
#: The oldest CLI with which the gateway's command line and stream were tried.
OLDEST = (2, 1, 330)
#: How a login's token begins, as `claude setup-token` makes it.
TOKEN_START = "sk-ant-oat"  # noqa: S105  (a prefix)
_PATIENCE_S = 30.0
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)\b")


def check_token(name: str, token: str) -> None:
    """Raise NotConfigured unless `token`, the value of the variable `name`, can be a login's token."""
    hint = f"claude setup-token makes one; it begins with {TOKEN_START}"
    if not token.startswith(TOKEN_START):
        wrong = "is no login's token" if token else "is not set"
        raise NotConfigured(f"{name} {wrong}", hint=hint, code="no_login")
    if not re.fullmatch(r"[!-~]+", token):
        # A terminal shows a token in two lines, and so it is copied.
        raise NotConfigured(f"{name} has white space in it", hint="take the token as one line", code="no_login")


def find_program(name: str, path: str | None) -> str:
    """Return the path of the CLI on `path`. Raise NotConfigured."""
    program = shutil.which(name, path=path)
    if program is None:
        hint = "install it: npm install -g @anthropic-ai/claude-code"
        raise NotConfigured("the claude CLI is not installed on this machine", hint=hint, code="no_claude")
    return program


def check_version(program: str, environ: Mapping[str, str]) -> None:
    """Raise NotConfigured if the CLI is older than OLDEST, or says nothing of its version."""
    said = _said([program, "--version"], environ) or b""
    match = _VERSION.match(said.decode("utf-8", "replace").strip())
    oldest = ".".join(map(str, OLDEST))
    if match is None:
        raise NotConfigured("`claude --version` names no version", hint=f"{oldest} or newer: claude update")
    if tuple(map(int, match.groups())) < OLDEST:
        raise NotConfigured(f"the claude CLI {match[0]} is older than {oldest}", hint="claude update", code="no_claude")


def check_plan(program: str, environ: Mapping[str, str]) -> None:
    """Raise NotConfigured if the CLI is not logged in, Refused if it would bill anything but a plan."""
    said = auth_status(program, environ)
    if not said.get("loggedIn"):
        raise NotConfigured("claude says that it is not logged in", hint=FIX, code="no_login")
    if said.get("authMethod") not in PLAN or said.get("apiKeySource"):
        raise would_bill(str(said.get("apiKeySource") or said.get("authMethod")))
    if said.get("apiProvider", "firstParty") != "firstParty":
        # A cloud of the machine's managed settings, which no command line switches off.
        raise would_bill(str(said["apiProvider"]))


def auth_status(program: str, environ: Mapping[str, str], *, settings: bool = False) -> dict[str, Any]:
    """Return the output of `claude auth status --json`, which sends no request to a model.

    With `settings`, the user's settings apply as well. Measured with 2.1.330: {"loggedIn", "authMethod": "claude.ai" |
    "oauth_token" | "api_key" | "api_key_helper" | …, "apiKeySource", "subscriptionType"}; exit status 1 if not logged
    in. Raise NotConfigured.
    """
    argv = [program, *([] if settings else ["--setting-sources", ""]), "auth", "status", "--json"]
    try:
        said = json.loads(_said(argv, environ) or b"")
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        hint = "run it by itself to see why; an old CLI does not know it: claude update"
        raise NotConfigured("`claude auth status --json` gave no answer", hint=hint, code="no_claude")
    return said


def _said(argv: list[str], environ: Mapping[str, str]) -> bytes | None:
    try:
        done = subprocess.run(
            argv, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout


def would_bill(source: str) -> Refused:
    """Return the error for a CLI that would use another credential than the plan's login."""
    return Refused(
        f"claude would not use the plan's login but {redact(source)[:80]}",
        hint="farmhand doctor shows where that comes from",
        code="subscription_off",
    )
