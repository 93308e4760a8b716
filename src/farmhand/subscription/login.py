"""The operator's login to their plan, as stored by the claude CLI. It is only read, never changed, copied or shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farmhand.core.child import scrubbed
from farmhand.core.claude import login_path
from farmhand.core.errors import NotConfigured

#: The hint for restoring the login.
FIX = "log in: run claude, then /login"
#: The item of the macOS keychain that holds the login.
_KEYCHAIN_ITEM = "Claude Code-credentials"


@dataclass(frozen=True, kw_only=True)
class Login:
    """An existing login that has not expired. `ends_at` is a Unix time, None if the CLI has recorded none.

    `renews`: the CLI obtains new access tokens by itself while the login is valid.
    """

    where: str
    plan: str = ""
    ends_at: float | None = None
    renews: bool = False

    def days_left(self, now: float | None = None) -> int | None:
        """Return whole days until the login ends, or None if that is not recorded."""
        return None if self.ends_at is None else int((self.ends_at - (now or time.time())) // 86400)


def find_login(environ: Mapping[str, str] = os.environ, *, now: float | None = None) -> Login:
    """Return the current login. Raise NotConfigured, with the fix, if there is none or it has ended."""
    if environ.get("CLAUDE_CODE_OAUTH_TOKEN"):
        return Login(where="CLAUDE_CODE_OAUTH_TOKEN")
    path = login_path(environ)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if sys.platform == "darwin":
            return _from_keychain()
        raise _no_login(f"no login to a plan: {path} does not exist") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise _no_login(f"the login file {path} cannot be read: {why}") from None
    # {"claudeAiOauth": {accessToken, refreshToken, expiresAt, …}}, times in ms
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    held = document.get("claudeAiOauth") if isinstance(document, dict) else None
    if not isinstance(held, dict) or not held.get("accessToken"):
        raise _no_login(f"the login file {path} holds no login")
    renews = bool(held.get("refreshToken"))
    # An access token lasts for hours and is renewed by the CLI; the login itself lasts as long as the refresh token.
    ends_at = _seconds(held.get("refreshTokenExpiresAt")) if renews else _seconds(held.get("expiresAt"))
    if ends_at is not None and ends_at <= (now or time.time()):
        ended = time.strftime("%Y-%m-%d", time.gmtime(ends_at))
        raise NotConfigured(f"the login in {path} ended on {ended}", hint=FIX, code="login_expired")
    return Login(where=str(path), plan=str(held.get("subscriptionType") or ""), ends_at=ends_at, renews=renews)


def _no_login(message: str) -> NotConfigured:
    return NotConfigured(message, hint=FIX, code="no_login")


def _seconds(milliseconds: Any) -> float | None:
    known = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    return milliseconds / 1000 if known else None


def _from_keychain() -> Login:
    """Return the login if the macOS keychain has the item. Its content is not read, since that may open a dialogue."""
    command = ["security", "find-generic-password", "-s", _KEYCHAIN_ITEM]
    try:
        subprocess.run(command, env=scrubbed(), stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        raise _no_login(f"no login to a plan: the keychain has no {_KEYCHAIN_ITEM!r}") from None
    return Login(where="the keychain", renews=True)
