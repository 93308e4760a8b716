"""The credential of an agent container: taken from the environment, and from nowhere else a program could read it."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from farmhand.cloud.calls import ContainerBucket, patiently
from farmhand.cloud.ending import ContainerEnds, StopClock, say
from farmhand.cloud.federation import FederationIds, TokenExchange
from farmhand.cloud.token_keeper import TokenKeeper
from farmhand.core import keys
from farmhand.core.settings import UPSTREAM
from farmhand.core.shard import CREDENTIAL, CREDENTIAL_KIND, EXIT_CONFIG
from farmhand.core.shard import UPSTREAM as UPSTREAM_NAME
from farmhand.core.task_access import BAKED, BAKED_FILE, FEDERATION, GIT_LOGIN, OF_A_PLAN, OF_AN_IMAGE, PLAN, SOURCE

FEDERATED = "federation"
_HINT = "see the secret of this environment"


@dataclass
class HeldCredential:
    """What the daemon sends to the API, and its kind. Of a federation there is no value before `obtain`.

    `fingerprint` is the credential's; `name` is that by which the daemon knows it, also when a federation's token was
    renewed. `ends_at` is a Unix time, None if not known. With `source` it is an object that `read` reads.
    """

    kind: str
    value: str = field(repr=False)
    fingerprint: str
    ends_at: float | None = None
    ids: FederationIds | None = None
    name: str = ""
    keeper: TokenKeeper | None = field(default=None, repr=False)
    git_token: str = field(default="", repr=False)
    source: str = ""
    plan_allowed: bool = False

    @property
    def mode(self) -> Literal["key", "bearer", "plan"]:
        """Return the daemon's setting `credential`."""
        return "plan" if self.kind in OF_A_PLAN else "bearer" if self.kind == FEDERATED else "key"

    @property
    def failure(self) -> ContainerEnds | None:
        """Return why it cannot be used any more, None while it can."""
        return self.keeper.failure if self.keeper is not None else None

    def obtain(self, sts: Any, clock: StopClock) -> None:
        """Get a federation's first token; of any other kind the value is there. Raise ContainerEnds."""
        if self.ids is not None and self.keeper is None:
            self.keeper = TokenKeeper(TokenExchange(self.ids, os.environ.get(UPSTREAM_NAME) or UPSTREAM, sts))
            self.value = self.keeper.obtain(clock)
        self.name = keys.fingerprint(self.value)

    @property
    def sent(self) -> str | None:
        """Return what goes to the daemon with the work: None if `hand_to` has given it already."""
        return self.value if self.keeper is None else None

    def hand_to(self, give: Callable[[str, str], None]) -> None:
        """Give a federation's token and `name` to `give`, and each later one too, from a thread of its own."""
        if self.keeper is None:
            return

        def take_over(value: str) -> None:
            self.value = value
            give(value, self.name)

        self.keeper.give = take_over
        take_over(self.keeper.value)

    def replace(self, clock: StopClock) -> bool:
        """Get another token, since the API has refused this one, and give it as `hand_to` says.

        Return False if the kind has no other one. Raise ContainerEnds.
        """
        if self.keeper is None:
            return False
        self.keeper.replace(self.value, clock)
        return True

    def warn(self, limit_s: float) -> None:
        """Say so if it ends before a task of that many seconds may."""
        if self.ends_at is not None and (left := self.ends_at - time.time()) < limit_s:
            say(f"the {self.kind} ends {_when(self.ends_at)}, in {left / 60:.0f} min: the task may take {limit_s:g} s")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("at %Y-%m-%d %H:%M UTC")


def _checked(text: str, *, token: bool) -> str:
    """Return a key, or with `token` an access token. Raise ContainerEnds; no message has any part of it."""
    try:
        keys.check_format(text)
    except ValueError as error:
        said = str(error).replace("API key", "token") if token else str(error)
        raise ContainerEnds(EXIT_CONFIG, f"{CREDENTIAL}: {said}: {_HINT}") from None
    if text.startswith(keys.TOKEN_PREFIX) != token:
        found = "an access token and no API key" if not token else "no access token of a plan"
        raise ContainerEnds(EXIT_CONFIG, f"{CREDENTIAL} is {found}: {_HINT}")
    return text


def _key(text: str, kind: str) -> HeldCredential:
    value = _checked(text, token=False)
    return HeldCredential(kind, value, keys.fingerprint(value))


def _setup_token(text: str, kind: str) -> HeldCredential:
    value = _checked(text, token=True)
    return HeldCredential(kind, value, keys.fingerprint(value))


def _login(text: str, kind: str) -> HeldCredential:
    """Return the access token of a login, in the form in which `farmhand cloud credential put` has stored it."""
    try:
        held = json.loads(text)["claudeAiOauth"]
        value, ends_ms = str(held["accessToken"]), float(held["expiresAt"])
        refresh = held.get("refreshToken")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ContainerEnds(EXIT_CONFIG, f"{CREDENTIAL} is no login as farmhand stores it: {_HINT}") from None
    if refresh:
        raise ContainerEnds(EXIT_CONFIG, f"{CREDENTIAL} has a refresh token, which must not be here: {_HINT}")
    ends = ends_ms / 1000
    if not time.time() < ends < 1e11:
        when = _when(ends) if 0 < ends < 1e11 else "at no time that makes sense"
        hint = "run claude, then farmhand cloud credential put --kind login"
        raise ContainerEnds(EXIT_CONFIG, f"the login has ended {when}: {hint}")
    _checked(value, token=True)
    return HeldCredential(kind, value, keys.fingerprint(value), ends_at=ends)


#: How a credential is read, by its kind.
_SOURCES: dict[str, Callable[[str, str], HeldCredential]] = {
    "key": _key,
    "setup-token": _setup_token,
    "login": _login,
}
#: Characters of a credential in an image, at most.
_MOST = 4096
_NO_SECRET = "none"  # noqa: S105  (a kind, and no secret)


def take(environ: MutableMapping[str, str] = os.environ) -> HeldCredential:
    """Take the credential out of the environment, and the git token. Raise ContainerEnds."""
    _blot(CREDENTIAL)
    _blot(GIT_LOGIN)
    git_token = environ.pop(GIT_LOGIN, "")
    held = _take(environ)
    held.git_token = git_token
    return held


def read(held: HeldCredential, s3: Any, clock: StopClock) -> HeldCredential:
    """Return the credential that `held` names in S3, any other as it is. Raise ContainerEnds."""
    if not held.source:
        return held
    bucket, _, key = held.source.removeprefix("s3://").partition("/")
    body = patiently(lambda: ContainerBucket(s3, bucket).get(key), clock)
    try:
        text = body.decode("utf-8").strip()
        document = json.loads(text) if text.startswith("{") else {"value": text}
        kind, value = document.get("kind"), str(document.get("value") or "")
    except (ValueError, RecursionError):
        raise ContainerEnds(EXIT_CONFIG, f"{held.source} is neither a credential nor a document of one") from None
    if "claudeAiOauth" in document:
        kind, value = "login", text
    kind = kind or ("setup-token" if value.startswith(keys.TOKEN_PREFIX) else "key")
    if kind not in _SOURCES:
        raise ContainerEnds(EXIT_CONFIG, f"{held.source} has a credential of the kind {kind!r:.40}")
    if kind in OF_A_PLAN and not held.plan_allowed:
        raise ContainerEnds(EXIT_CONFIG, f"{held.source} has a {kind}, which is of your plan: --subscription")
    found = _SOURCES[kind](value, kind)
    found.git_token = held.git_token
    return found


def _take(environ: MutableMapping[str, str]) -> HeldCredential:
    text, kind = environ.pop(CREDENTIAL, ""), environ.get(CREDENTIAL_KIND) or "key"
    source = environ.get(SOURCE, "")
    if source.startswith("s3://"):
        return HeldCredential("key", "", "", source=source, plan_allowed=environ.get(PLAN) == "true")
    if source == BAKED:
        if text:
            raise ContainerEnds(EXIT_CONFIG, f"{CREDENTIAL} is set beside the image's own, which it would shadow")
        if kind not in OF_AN_IMAGE:
            raise ContainerEnds(EXIT_CONFIG, f"{CREDENTIAL_KIND} is {kind!r:.40}, which is not taken from an image")
        text = _baked(BAKED_FILE)
    if source == FEDERATED:
        text, kind = "", _NO_SECRET
    if kind == _NO_SECRET:
        if text:
            raise ContainerEnds(EXIT_CONFIG, f"{CREDENTIAL} is set beside a federation, which it would shadow")
        ids = FederationIds.of(environ.get(FEDERATION, ""))
        return HeldCredential(FEDERATED, "", keys.fingerprint(",".join(ids)), ids=ids)
    try:
        return _SOURCES[kind](text, kind)
    except KeyError:
        known = ", ".join((*_SOURCES, _NO_SECRET))
        raise ContainerEnds(EXIT_CONFIG, f"{CREDENTIAL_KIND} is {kind!r:.40}, not one of {known}") from None


def _baked(path: str) -> str:
    """Return the credential of this container's image. Raise ContainerEnds if another user could read it too."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
            about = os.fstat(file.fileno())
            if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077:
                raise ContainerEnds(EXIT_CONFIG, f"{path} is not this user's alone")
            return file.read(_MOST).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ContainerEnds(EXIT_CONFIG, f"{path}, the image's credential, cannot be read: {error}") from None


def _blot(name: str) -> None:
    """Overwrite a variable where the kernel has put it: /proc/PID/environ shows that memory whatever unsetenv does."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    if address := libc.getenv(name.encode()):
        ctypes.memset(address, ord("x"), len(os.environb.get(name.encode(), b"")))
