"""SHA-256 without OpenSSL, which hashlib would load: 8 ms of a start. The standard library's random does the same."""

from __future__ import annotations

try:
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:  # Python 3.12 has it elsewhere
    from hashlib import sha256

__all__ = ["sha256"]
