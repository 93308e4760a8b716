"""A git login without a person: one token for one server, which git gets over a pipe when it asks for it.

The token is in no address, no argument and no environment, and no other server gets it: the credential helper is set
for this one only. Public reports of such leaks: gitingest#605 (argument), preloop#178 (address), pr-agent#2697 (log).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from farmhand.core.errors import UsageError
from farmhand.core.keys import without_secrets

#: Servers ignore the name beside a token, or want this one.
_USER = "x-access-token"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
#: What nobody is there to answer, and what a server could make git do.
_SETTINGS = (
    *("credential.helper=", "protocol.allow=never", "protocol.https.allow=always", "protocol.file.allow=never"),
    *("fetch.fsckObjects=true", "transfer.fsckObjects=true", "core.askPass=", "http.sslVerify=true"),
    # A server that sends next to nothing for a minute is given up.
    *("http.lowSpeedLimit=1000", "http.lowSpeedTime=60"),
)


@dataclass(frozen=True)
class GitSetup:
    """How one git command is started: settings, its whole environment, descriptors that it inherits."""

    settings: tuple[str, ...]
    environ: Mapping[str, str]
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokenLogin:
    """The login at the server of `url`; `token` "" is for a public repository. Raise UsageError."""

    url: str
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        check_url(self.url)

    @contextmanager
    def opened(self) -> Iterator[GitSetup]:
        """Yield the setup of one command. Its pipe has the token once: a second question gets no answer."""
        parts = urlsplit(self.url)
        server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        allowed = () if parts.scheme == "https" else ("protocol.http.allow=always",)
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": tempfile.gettempdir(),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ALLOW_PROTOCOL": "https" if parts.scheme == "https" else "http:https",
            "LC_ALL": "C.UTF-8",
        }
        reader, writer = os.pipe()
        try:
            # It fits into the pipe's buffer.
            os.write(writer, f"username={_USER}\npassword={self.token}\n".encode() if self.token else b"")
            os.close(writer)
            helper = f'credential.{server}.helper=!f() {{ test "$1" = get && cat /dev/fd/{reader}; }}; f'
            yield GitSetup((*_SETTINGS, *allowed, helper), environ, (reader,))
        finally:
            os.close(reader)

    def hidden(self, text: str) -> str:
        """Return `text` without the token, and without any other login in an address."""
        return without_secrets(text.replace(self.token, "…") if self.token else text)


def check_url(url: str) -> None:
    """Raise UsageError unless a token may be sent there: https, or this machine itself."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        hint = "https://…: a task has no ssh key, and no file of this machine"
        shown = without_secrets(url)
        raise UsageError(f"{shown!r:.200} cannot be cloned in a task", hint=hint, code="invalid_repository")
