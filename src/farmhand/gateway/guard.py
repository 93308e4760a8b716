"""Who may ask: the checks of a request's head, in their order, before any of its body is read.

The gateway listens on loopback, where every web page and every local user can send requests too. A page is known by its
`Origin` or `Sec-Fetch-Site`, a rebound name by its `Host`, another user by the missing token. No answer ever has a CORS
header. `Sec-Fetch-Mode` alone is no page: Node's fetch sends it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from farmhand.core.errors import NotConfigured
from farmhand.core.files import replace
from farmhand.core.keys import GATEWAY_PREFIX

if TYPE_CHECKING:
    from aiohttp import web  # commands read the token: they do without a server

#: Failed tokens within a second after which each further one waits, and how long. Seconds.
_FAILURES = 8
_DELAY_S = 1.0
#: Bytes of a token file that are read: a longer one is none of ours.
_MAX_TOKEN = 512


class Denied(Exception):
    """A request that is refused before its body is read: an HTTP status, the reason, headers of the answer."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Guard:
    """Checks requests to a server on `port`, whose clients have `token`."""

    def __init__(self, token: str, port: int) -> None:
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._digest = b""
        self._second, self._failures = 0, 0
        self.use(token)

    def use(self, token: str) -> None:
        """Accept `token` from now on, and no other."""
        self._digest = hashlib.sha256(token.encode()).digest()

    async def check(self, request: web.BaseRequest, *, public: bool) -> None:
        """Raise Denied unless the request may be answered. `public`: without a token too."""
        headers = request.headers
        if not _is_loopback(request):
            raise Denied(403, "the gateway answers this machine only")
        if headers.getall("host", []) not in ([host] for host in self._hosts):
            raise Denied(421, "the Host header is not this gateway's own address and port")
        if "origin" in headers:
            raise Denied(403, "the gateway answers no web page: the request has an Origin")
        if headers.getall("sec-fetch-site", ["none"]) != ["none"]:
            raise Denied(403, "the gateway answers no web page: the request has Sec-Fetch-Site")
        if request.method == "OPTIONS":
            raise Denied(405, "the gateway has no OPTIONS")
        if not public and not self._known(request):
            await self._slow_down()
            raise Denied(401, "missing or wrong token: farmhand gateway token prints it", x_should_retry="false")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and kind != "application/json":
            raise Denied(415, "content-type must be application/json")

    def _known(self, request: web.BaseRequest) -> bool:
        """Return whether one of the request's tokens is ours. All are compared, each in constant time."""
        given = list(request.headers.getall("x-api-key", []))
        for value in request.headers.getall("authorization", []):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer":
                given.append(token.strip())
        digests = [hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest() for token in given]
        return sum(hmac.compare_digest(digest, self._digest) for digest in digests) > 0

    async def _slow_down(self) -> None:
        """Count a failed token, and wait if there are too many."""
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._second, self._failures = second, 0
        self._failures += 1
        if self._failures > _FAILURES:
            await asyncio.sleep(_DELAY_S)


def _is_loopback(request: web.BaseRequest) -> bool:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return peer is not None and ipaddress.ip_address(peer[0]).is_loopback


def read_token(path: Path) -> str:
    """Return the token in `path`. Raise NotConfigured if there is none, or if others can read or write the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise NotConfigured(f"{path} must be a file of your own with mode 0600", hint=f"chmod 600 {path}")
            token = file.read(_MAX_TOKEN).decode("ascii").strip()
    except FileNotFoundError:
        hint = "farmhand gateway serve makes it at its first start"
        raise NotConfigured(f"{path} does not exist: there is no token of the gateway yet", hint=hint) from None
    except (OSError, UnicodeError) as error:
        raise NotConfigured(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not a token'}") from None
    if len(token) < 32 or not token.isprintable():
        raise NotConfigured(f"{path} has no token", hint="farmhand gateway token --rotate makes one")
    return token


def make_token(path: Path) -> str:
    """Write a new token to `path`, readable by its owner only, and return it. Raise NotConfigured."""
    token = f"{GATEWAY_PREFIX}{secrets.token_urlsafe(32)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace(path, f"{token}\n".encode(), mode=0o600)
    except OSError as error:
        raise NotConfigured(f"{path} cannot be written: {error.strerror}", hint="check token_file") from None
    return token


def token_of(path: Path) -> str:
    """Return the token in `path`, and make one if the file does not exist. Raise NotConfigured."""
    return read_token(path) if os.path.lexists(path) else make_token(path)
