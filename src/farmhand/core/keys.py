"""Metered API keys: their format, their fingerprint, and their removal from text."""

from __future__ import annotations

import re
from typing import Any

#: What goes with tasks to a host: the key, or the keys of pots: see pots.keys_of.
Credential = str | list[dict[str, Any]]
#: The default key source; the forms are in keysource.
DEFAULT_SOURCE = "file:~/repos.env"
#: The longest accepted key. Real keys have about 110 characters.
MAX_KEY_CHARS = 512
PREFIX = "sk-ant-"
#: How an access token begins: of a login, of `claude setup-token`, of a federation. It is sent as bearer token.
TOKEN_PREFIX = f"{PREFIX}oat"
#: How a token of the operator's gateway begins. It opens the gateway and no account.
GATEWAY_PREFIX = "fhg-"
#: Matches a key, an Admin key or a login token, wherever one is searched for, hidden or removed. Shorter strings are
#: examples in texts and patterns in sources; real keys have about 100 characters. Some tools change the case.
KEY = re.compile(r"sk-ant-[A-Za-z0-9_-]{16,}", re.IGNORECASE)
#: Matches the part of a URL before its host: user and password, or a token.
_PASSWORD = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^/?#\s@']*@")
REDACTED = "sk-ant-…[redacted]"
FINGERPRINT_DIGITS = 12
#: Credentials that are no metered keys, by how they begin.
_OTHERS = (
    (f"{PREFIX}ort", "a refresh token"),
    (f"{PREFIX}oat", "a token of a plan"),
    (f"{PREFIX}admin", "an Admin key"),
)


def is_key(text: str) -> bool:
    """Return whether `text` looks like an API key: `sk-ant-` and 16 or more of A-Z a-z 0-9 _ -, 512 in all at most."""
    return len(text) <= MAX_KEY_CHARS and text.startswith(PREFIX) and KEY.fullmatch(text) is not None


def check_format(text: str) -> str:
    """Return `text` if it has the form of an API key.

    Raise ValueError otherwise. The message names the problem and never contains any part of `text`.
    """
    if not text:
        raise ValueError("the API key is empty")
    if len(text) > MAX_KEY_CHARS:
        raise ValueError(f"the API key is longer than {MAX_KEY_CHARS} characters")
    if text.strip() != text:
        raise ValueError("the API key has white space around it")
    if not text.startswith(PREFIX):
        raise ValueError("the API key does not start with sk-ant-")
    if not is_key(text):
        raise ValueError("the API key is too short or has characters other than letters, digits, _ and -")
    return text


def own_key(key: Credential, pot: str) -> str:
    """Return the key itself, or that of the pot."""
    return key if isinstance(key, str) else next(each["key"] for each in key if each["name"] == pot)


def other_kind(text: str) -> str:
    """Return what `text` is where that is no metered key: a refresh token, a token of a plan, an Admin key; else ""."""
    return next((name for start, name in _OTHERS if text.startswith(start)), "")


def fingerprint(key: str) -> str:
    """Return the first 12 hex digits of the key's SHA-256: enough to distinguish keys, without disclosing any."""
    import hashlib  # not at the top: it loads OpenSSL, which most calls do not need

    return hashlib.sha256(key.encode()).hexdigest()[:FINGERPRINT_DIGITS]


def is_fingerprint(text: str) -> bool:
    """Return whether `text` has the form of a fingerprint."""
    return re.fullmatch(rf"[0-9a-f]{{{FINGERPRINT_DIGITS}}}", text) is not None


def redact(text: str) -> str:
    """Return `text` with everything that looks like a key replaced by `sk-ant-…[redacted]`."""
    return KEY.sub(REDACTED, text)


def without_secrets(text: str) -> str:
    """Return `text` without keys and URL passwords, for arguments and settings that are echoed."""
    return _PASSWORD.sub("\\1…@", redact(text))


def harmless(value: Any) -> Any:
    """Return a host's JSON report about itself with `without_secrets` applied to every text and every name."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {without_secrets(name): harmless(item) for name, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, list) else value


def holds_key(value: object, key: Credential) -> bool:
    """Return whether any text of a task contains a key: such a task would send it to the model and into the ledger."""
    if not isinstance(key, str):
        return any(holds_key(value, pot["key"]) for pot in key)
    if isinstance(value, str):
        return key in value
    if isinstance(value, dict):
        return any(holds_key(part, key) for item in value.items() for part in item)
    return isinstance(value, (list, tuple)) and any(holds_key(part, key) for part in value)
