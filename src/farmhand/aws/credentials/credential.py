"""A credential on its way to AWS: where it is read, and what is refused before any network is used.

key           the metered API key: the usual one
setup-token   the token of `claude setup-token`, for the operator's own plan; it lasts a year
login         the access token of the CLI's own login file, without its refresh token; it lasts some hours
git           a token for private repositories

A refresh token can be used once, by one program: two that share it log each other out (claude-code#24317, #76561,
#88947). So none ever leaves this machine.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from farmhand.aws.credentials.secret import digest
from farmhand.aws.names import KINDS
from farmhand.core import envfile, keys, keysource
from farmhand.core.claude import login_path
from farmhand.core.errors import NotConfigured, Refused, UsageError, WireError
from farmhand.core.settings import Settings
from farmhand.core.task_access import OF_A_PLAN

#: A login with less time left is of no use for a task. Seconds.
LOGIN_LEAST_S = 1800.0
#: How long a token of `claude setup-token` lasts. It does not say so itself. Source: the CLI's own help.
SETUP_TOKEN_DAYS = 365
#: Fewer characters are what is left of a token that a terminal broke in two (claude-code#54738, openclaw#53464).
_SETUP_TOKEN_CHARS = 90
#: The variable that a file is searched for, where the source names none.
_NAMES = {"setup-token": "CLAUDE_CODE_OAUTH_TOKEN", "git": "GIT_TOKEN"}
_REFRESH_NAME = "CLAUDE_CODE_OAUTH_REFRESH_TOKEN"
_TOKEN, _REFRESH = keys.TOKEN_PREFIX, f"{keys.PREFIX}ort"
#: What a task needs of the login file. Everything else in it, other logins too, stays here.
_LOGIN_FIELDS = ("accessToken", "expiresAt", "scopes", "subscriptionType", "rateLimitTier")
_LOG_IN = "log in: run claude, then /login"
#: Source: GitHub's page about the formats of its tokens.
_GITHUB_REFRESH = "ghr_"
_GIT_TOKEN = re.compile(r"[\x21-\x7e]{8,512}")
#: What stands beside the setting wherever it is needed and not set.
TERMS = (
    "read docs/subscription.md first. The provider's position, read on 2026-11-24: developers should use API keys "
    "(--kind key), a plan's login is for its owner's ordinary use of the unmodified claude, and this may be enforced "
    "without notice. allow_subscription_cloud = true in config.toml turns it on"
)


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A credential that was judged fit. `value` is what is stored; `expires_at` is a Unix time, None if not known.

    `stated`: the end was given or is part of the credential, and not assumed.
    """

    kind: str
    value: str = field(repr=False)
    fingerprint: str
    expires_at: float | None = None
    stated: bool = False
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The SHA-256 of kind and value in 64 hex digits: the same credential always has the same one."""
        return digest(self.kind, self.value)


def read(
    kind: str,
    source: str,
    conf: Settings,
    *,
    expires: str = "",
    without_refresh_token: bool = False,
    now: float | None = None,
) -> Credential:
    """Read and judge a credential; nothing but its source is asked. `source` "" is the usual place of its kind.

    `expires` is the day of its end, as YYYY-MM-DD. Raise UsageError, NotConfigured if it cannot be read, Refused if it
    must not or need not be sent. No message has any part of it.
    """
    now = time.time() if now is None else now
    if kind not in KINDS:
        raise UsageError(f"{kind!r:.40} is not a kind of credential", hint=f"kinds: {', '.join(KINDS)}")
    if keys.PREFIX in source:
        hint = "that credential has leaked: make another one, and name a source of it"
        raise UsageError(
            "the credential itself was given: every process of this machine can see an argument", hint=hint
        )
    if kind == "login" and expires:
        raise UsageError("a login says itself when it ends", hint="leave out --expires")
    ends = None if not expires else _day(expires, now)
    if kind in OF_A_PLAN and not conf.allow_subscription_cloud:
        raise Refused(f"a {kind} is a credential of your plan, and allow_subscription_cloud is not set", hint=TERMS)
    try:
        if kind == "login":
            return _login(_login_text(source), now)
        text, where = _text(kind, source, conf, without_refresh_token=without_refresh_token)
    except WireError as error:
        raise error.at() from None
    _check(kind, text, where)
    if kind == "setup-token" and ends is None:
        ends = now + SETUP_TOKEN_DAYS * 86400
    fingerprint, notes = keys.fingerprint(text), []
    if kind == "setup-token" and len(text) < _SETUP_TOKEN_CHARS:
        notes.append(f"it has {len(text)} characters and such tokens have 108: was it copied from two lines?")
    return Credential(
        kind=kind, value=text, fingerprint=fingerprint, expires_at=ends, stated=bool(expires), notes=tuple(notes)
    )


def stamp(when: float | None) -> str:
    """Return a Unix time as in the tag of its name, 2027-03-01T12:00:00Z, or "" for None."""
    return "" if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _day(text: str, now: float) -> float:
    try:
        ends = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise UsageError("--expires is not a day like 2027-03-01") from None
    if ends <= now:
        raise Refused(f"the credential has expired: --expires {text} is past")
    return ends


def _text(kind: str, source: str, conf: Settings, *, without_refresh_token: bool) -> tuple[str, str]:
    """Return the text of a source in the forms of a key source, and where it is."""
    source = source or (conf.key_source if kind == "key" else "")
    if not source:
        raise UsageError(f"no source of the {kind} is named", hint=f"--source file:PATH#{_NAMES[kind]}, for example")
    form, _, rest = source.partition(":")
    if form == "file" and rest:
        path = os.path.expanduser(rest.rpartition("#")[0] or rest)
        held = keysource.read_private(path)
        if held.lstrip().startswith("{"):
            raise Refused(f"{path} is a login file of the CLI, and no {kind}", hint="use --kind login")
        if "#" not in rest and kind in _NAMES:
            source += f"#{_NAMES[kind]}"
        if not without_refresh_token and _sets(held, _REFRESH_NAME):
            hint = "take it out, or --without-refresh-token leaves it here"
            raise Refused(f"{path} has a refresh token, which must not leave this machine", hint=hint)
    return keysource.read_text(source)


def _sets(text: str, name: str) -> bool:
    try:
        return bool(envfile.parse(text).get(name))
    except envfile.EnvFileError:
        return False  # the reader of the source says what is wrong


def _check(kind: str, text: str, where: str) -> None:
    """Raise Refused if `text` is of another kind, NotConfigured if it is nothing at all."""
    found = keys.other_kind(text)
    if found == "a refresh token":
        raise Refused(f"{where} is a refresh token, which must not leave this machine")
    if text.lstrip().startswith("{"):
        raise Refused(f"{where} is a JSON document and no {kind}", hint="a login file is --kind login")
    if kind == "git":
        if text.startswith(keys.PREFIX):
            raise Refused(f"{where} is {found or 'a metered key'} and no token for git", hint="name the other source")
        if text.startswith(_GITHUB_REFRESH):
            hint = "it gets no repository, and works once: name the access token (ghu_…) or a personal one"
            raise Refused(f"{where} is a refresh token of GitHub, which must not leave this machine", hint=hint)
        if not _GIT_TOKEN.fullmatch(text) or "://" in text:
            raise NotConfigured(
                f"{where} is not one word of 8 to 512 printable characters", hint="the token alone, no URL"
            )
        return
    try:
        keys.check_format(text)
    except ValueError as error:
        said = str(error).replace("API key", kind)
        hint = "a token that a terminal broke into two lines must be one line again" if kind == "setup-token" else ""
        raise NotConfigured(f"{where}: {said}", hint=hint) from None
    wanted = "a token of a plan" if kind == "setup-token" else ""
    if found != wanted:
        raise Refused(f"{where} is {found or 'a metered key'} and no {kind}", hint=_OTHER.get(found, "use --kind key"))


_OTHER = {
    "a token of a plan": "use --kind setup-token",
    "an Admin key": "it can do more than a task needs: use another",
}


def _login_text(source: str) -> tuple[str, str]:
    """Return the login file's text, from a path, from `file:PATH`, or from another form of a key source."""
    form, _, rest = source.partition(":")
    if form in ("command", "keyring", "env") and rest:
        return keysource.read_text(source)
    path = str(login_path()) if not source else os.path.expanduser(rest if form == "file" else source)
    if not os.path.exists(path):
        raise NotConfigured(f"there is no login file {path}", hint=_LOG_IN)
    return keysource.read_private(path), path


def _login(found: tuple[str, str], now: float) -> Credential:
    text, where = found
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    held = document.get("claudeAiOauth") if isinstance(document, dict) else None
    if not isinstance(held, dict):
        raise NotConfigured(f"{where} is not a login file of the CLI", hint=_LOG_IN)
    token, ends_ms = held.get("accessToken"), held.get("expiresAt")
    if not token:
        # What the CLI leaves behind when two of its sessions have used one refresh token: claude-code#76561.
        raise NotConfigured(f"{where} holds no login any more", hint=_LOG_IN)
    if not isinstance(token, str) or not keys.is_key(token) or not token.startswith(_TOKEN):
        raise Refused(f"the accessToken of {where} is not a token of a plan", hint=_LOG_IN)
    if isinstance(ends_ms, bool) or not isinstance(ends_ms, int | float) or not 0 < ends_ms < 1e14:
        raise Refused(f"{where} does not say when the login ends", hint=_LOG_IN)
    ends = ends_ms / 1000
    left = ends - now
    if left <= 0:
        raise Refused(f"the login in {where} has expired at {stamp(ends)}", hint="run claude once, which renews it")
    if left < LOGIN_LEAST_S:
        hint = "run claude once, which renews it"
        raise Refused(f"the login in {where} ends in {left / 60:.0f} min, at {stamp(ends)}: less than 30", hint=hint)
    kept: dict[str, Any] = {name: held[name] for name in _LOGIN_FIELDS if name in held}
    value = json.dumps({"claudeAiOauth": kept}, sort_keys=True, separators=(",", ":"))
    if _REFRESH in value:
        raise Refused(f"{where} has a refresh token where none belongs", hint=_LOG_IN)
    hours, minutes = divmod(int(left // 60), 60)
    dropped = "its refresh token stays here, so this logs nobody out; " if held.get("refreshToken") else ""
    note = f"{dropped}the login ends at {stamp(ends)}, in {hours} h {minutes} min"
    fingerprint = keys.fingerprint(token)
    return Credential(kind="login", value=value, fingerprint=fingerprint, expires_at=ends, stated=True, notes=(note,))
