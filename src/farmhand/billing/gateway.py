"""Whose a base URL is: the operator's own gateway's, nobody's any more, or somebody else's.

A URL is ours if it names the address of `gateway.toml`, a process of the same user listens there, and it answers
`/health` as the gateway does. Nothing is sent but that question, and to this machine only.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ..core.files import xdg
from ..core.keys import GATEWAY_PREFIX
from ..core.listener import of_user
from .names import TOKEN

BASE_URL = "ANTHROPIC_BASE_URL"
DEFAULT_LISTEN = "127.0.0.1:7345"
_LOOPBACK = re.compile(r"localhost|127(?:\.\d{1,3}){3}|::1")
#: Paths below which the gateway serves what the CLI asks for.
_PATH = re.compile(r"(?:/c/[a-z-]+)?/?")
_PROVIDER = "api.anthropic.com"
_PATIENCE_S = 5.0
_MAX_ANSWER = 4096


@dataclass(frozen=True)
class Whose:
    """Whose a base URL is. `ours`: the gateway's address; `note` says what is wrong, and what to do, if it is not."""

    ours: str = ""
    note: str = ""


class OwnGateway:
    """The gateway of the user with this home. Each URL is asked once."""

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        self._config = Path(xdg("XDG_CONFIG_HOME", {"HOME": str(home), **environ})) / "farmhand" / "gateway.toml"
        self._home = home
        self._known: dict[str, Whose] = {}

    def whose(self, url: str | None) -> Whose:
        """Return whose `url` is. It is nobody's if it is known only by running something."""
        if not url:
            return Whose()
        if url not in self._known:
            self._known[url] = self._asked(url)
        return self._known[url]

    def spared(self, values: Mapping[str, str | None]) -> frozenset[str]:
        """Return the names that lead to our gateway and to no account: its URL, and its token beside that."""
        if not self.whose(values.get(BASE_URL)).ours:
            return frozenset()
        token = (values.get(TOKEN) or "").startswith(GATEWAY_PREFIX)
        return frozenset({BASE_URL, TOKEN} if token else {BASE_URL})

    @property
    def listen(self) -> str:
        """Return the address of the settings, or the default one."""
        with suppress(ImportError, OSError, ValueError):  # Python 3.10 has no tomllib
            import tomllib

            listen = tomllib.loads(self._config.read_text(encoding="utf-8")).get("listen", DEFAULT_LISTEN)
            return listen if isinstance(listen, str) else DEFAULT_LISTEN
        return DEFAULT_LISTEN

    def _asked(self, url: str) -> Whose:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            return Whose(note="it is not a URL; take it out")
        if host == _PROVIDER:
            return Whose()
        if not _LOOPBACK.fullmatch(host):
            return Whose(note="a server that is not the provider's gets what claude sends; take it out")
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        answered = _health(host, port)
        if answered is None:
            start = "start the gateway (farmhand gateway serve) or take it out"
            return Whose(note=f"nothing answers on {at}; {start if self._is_address(host, port) else 'take it out'}")
        if not answered or not self._is_address(host, port) or not _plain(parts):
            return Whose(note=f"{at} is not your gateway, and gets what claude sends; take it out")
        if not of_user(port, os.stat(self._home).st_uid):
            return Whose(note=f"a process of another user listens on {at}; take it out")
        return Whose(ours=at)

    def _is_address(self, host: str, port: int) -> bool:
        own, _, number = self.listen.rpartition(":")
        return number == str(port) and (host in (own.strip("[]"), "localhost") or own == "localhost")


def _plain(parts: SplitResult) -> bool:
    """Return whether the URL is one that the gateway serves, with nothing in it that belongs elsewhere."""
    nothing_else = not (parts.query or parts.fragment or parts.username or parts.password)
    return parts.scheme == "http" and nothing_else and _PATH.fullmatch(parts.path) is not None


def _health(host: str, port: int) -> bool | None:
    """Return whether what listens there answers as the gateway does; None if nothing answers.

    The time is for the whole answer: what sends a byte now and then gets no more of it.
    """
    ends, said = time.monotonic() + _PATIENCE_S, b""
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with socket.create_connection((host, port), _PATIENCE_S) as connection:
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n".encode())
            while len(said) < _MAX_ANSWER and (left := ends - time.monotonic()) > 0:
                connection.settimeout(left)
                if not (piece := connection.recv(_MAX_ANSWER)):
                    break
                said += piece
    except ConnectionError:
        return None
    except OSError:
        return False
    head, _, body = said.partition(b"\r\n\r\n")
    status, *headers = head.lower().replace(b" ", b"").split(b"\r\n")
    good = re.match(rb"http/1\.[01]200", status) is not None and b"server:farmhand" in headers
    return good and b'"ok":true' in body.replace(b" ", b"")
