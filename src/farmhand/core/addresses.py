"""Addresses of servers, as settings and options name them. Standard library only."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

_HERE = ("127.0.0.1", "::1", "localhost")


def http_parts(url: str) -> SplitResult | None:
    """Return the parts of an http(s) address without a name or password; None if it is none that can be asked."""
    try:
        parts = urlsplit(url)
        sound = parts.hostname and parts.port != 0 and parts.username is None and not re.search(r"[\s\0]", url)
    except ValueError:  # a port that is none, half an IPv6 address
        return None
    return parts if sound and parts.scheme in ("http", "https") else None


def is_safe(url: str) -> bool:
    """Return whether what goes there is read by nobody on the way: https, or this machine itself."""
    parts = http_parts(url)
    return parts is not None and (parts.scheme == "https" or parts.hostname in _HERE)
