"""Filters for the playbooks, as plain functions. Usage: `ansible-doc -t filter farmhand_digest` and so on."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import ipaddress
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError

try:
    from farmhand.core import keys
except ModuleNotFoundError:  # Ansible of the distribution: use the package in the checkout, beside this directory.
    sys.path.append(str(Path(__file__).resolve().parent.parent / "src"))
    from farmhand.core import keys

#: Names that no login shell, sshd or inventory may contain.
PROTECTED_ENVIRONMENT = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
_PROTECTED_PREFIXES = ("ANTHROPIC_", "CLAUDE_")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*")
_ACCEPT_ENV = re.compile(r"^(\s*AcceptEnv)((?:\s+|\s*=\s*)\S.*?)?\s*$", re.IGNORECASE)


def fingerprint(key: str) -> str:
    """Return the key's fingerprint: 12 hex digits that distinguish keys without disclosing them."""
    try:
        return keys.fingerprint(keys.check_format(str(key)))
    except ValueError as error:
        raise AnsibleFilterError(f"farmhand_fingerprint: {error}") from None


def redact(text: str) -> str:
    """Return `text` with everything that looks like an API key or a login token hidden."""
    return keys.redact(str(text))


def digest(value: str, to: Literal["hex", "sri"] = "hex", algorithm: str = "sha512") -> str:
    """Convert a digest between `sha512-<base64>` (Subresource Integrity, as shown by npm) and hex digits.

    `algorithm` is the algorithm of a hex value; an SRI value names its own. Raise AnsibleFilterError for anything else.
    """
    sizes = {"sha256": 32, "sha384": 48, "sha512": 64}
    text = str(value).strip()
    head, dash, tail = text.partition("-")
    try:
        raw = base64.b64decode(tail, validate=True) if dash else bytes.fromhex(text)
    except (binascii.Error, ValueError):
        raise AnsibleFilterError(f"farmhand_digest: '{text}' is neither sha512-<base64> nor hex digits") from None
    name = head if dash else algorithm
    if name not in sizes:
        raise AnsibleFilterError(f"farmhand_digest: algorithm '{name}' is not one of {', '.join(sizes)}")
    if len(raw) != sizes[name]:
        raise AnsibleFilterError(f"farmhand_digest: '{text}' has {len(raw)} bytes; {name} has {sizes[name]}")
    if to == "hex":
        return raw.hex()
    if to == "sri":
        return f"{name}-{base64.b64encode(raw).decode()}"
    raise AnsibleFilterError(f"farmhand_digest: to is 'hex' or 'sri', not '{to}'")


def seconds(span: str | int | float, default: float | None = None) -> float | int:
    """Return the seconds in `span`: a number of seconds, or text such as "90s", "1h 30min", "250ms".

    For anything else return `default`, or raise AnsibleFilterError if there is none.
    """
    text = str(span).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        total = float(text)
    elif text and re.fullmatch(f"(?:{_SPAN.pattern})+", text):
        total = sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(text))
    elif default is not None:
        return default
    else:
        raise AnsibleFilterError(f'farmhand_seconds: \'{span}\' is not a duration such as 90, "90s" or "1h 30min"')
    total = round(total, 3)
    return int(total) if total == int(total) else total


def systemd_span(span: str | int | float) -> str:
    """Return `span` in systemd's notation, "1h 30min", as printed by `systemctl show`."""
    left = round(float(seconds(span)) * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0"


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in `value`, including keys of mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _strings(item)


def secret_names(variables: Mapping[str, Any]) -> list[str]:
    """Return the names, never the values, of variables that contain an API key or a login token at any depth."""
    found = []
    for name in variables:
        try:
            value = variables[name]
        except Exception:  # noqa: S112 - a template that cannot be resolved holds no secret that could be used
            continue
        if any(keys.redact(text) != text for text in _strings(value)):
            found.append(str(name))
    return sorted(found)


def upstream(url: str) -> dict[str, Any]:
    """Parse `url` as a Messages API base URL: scheme, host, port, address, private, problem.

    `address` is the host if that is a literal address, else ""; `problem` is "" if the URL is usable.
    """
    answer: dict[str, Any] = {"scheme": "", "host": "", "port": 0, "address": "", "private": False, "problem": ""}
    try:
        parts = urlsplit(str(url))
        port = parts.port
    except ValueError as error:
        return {**answer, "problem": str(error)}
    host = parts.hostname or ""
    answer.update(scheme=parts.scheme, host=host, port=port or {"https": 443, "http": 80}.get(parts.scheme, 0))
    try:
        address = ipaddress.ip_address(host)
        answer.update(address=str(address), private=address.is_private)
    except ValueError:
        answer["private"] = host == "localhost"
    answer["problem"] = _upstream_problem(str(url), answer)
    return answer


def _upstream_problem(url: str, answer: dict[str, Any]) -> str:
    parts = urlsplit(url)
    if answer["scheme"] not in ("http", "https") or not answer["host"]:
        return "it must be https://host[:port]"
    if parts.username is not None or parts.password is not None:
        return "it must hold no user name or password"
    if parts.query or parts.fragment:
        return "it must end with host, port or path: no ? and no #"
    if parts.path.rstrip("/").endswith("/v1"):
        return "it must end before /v1"
    if answer["scheme"] == "http" and not answer["private"]:
        return "plain http would send the key readable; it is taken for localhost and private addresses only"
    return ""


def accept_env(text: str) -> dict[str, Any]:
    """Remove the AcceptEnv patterns that would accept ANTHROPIC_* or CLAUDE_* from a client from an sshd_config.

    Return {"text": the cleaned file, "removed": ["line: pattern", …]}. A pattern such as `*` is removed as well.
    """
    lines, removed = [], []
    for number, line in enumerate(str(text).splitlines(keepends=True), start=1):
        match = _ACCEPT_ENV.match(line)
        if match is None:
            lines.append(line)
            continue
        patterns = (match[2] or "").replace("=", " ", 1).split()
        bad = [pattern for pattern in patterns if _takes_protected(pattern.strip('"'))]
        removed += [f"{number}: {pattern}" for pattern in bad]
        kept = [pattern for pattern in patterns if pattern not in bad]
        if not bad:
            lines.append(line)
        elif kept:
            lines.append(f"{match[1]} {' '.join(kept)}\n")
    return {"text": "".join(lines), "removed": removed}


def _takes_protected(pattern: str) -> bool:
    """Return whether sshd's `pattern` matches a name that begins with ANTHROPIC_ or CLAUDE_."""
    if any(fnmatch.fnmatchcase(name, pattern) for name in PROTECTED_ENVIRONMENT):
        return True
    literal = re.split(r"[*?]", pattern, maxsplit=1)[0]
    if literal == pattern:
        return pattern.startswith(_PROTECTED_PREFIXES)
    return any(prefix.startswith(literal) or literal.startswith(prefix) for prefix in _PROTECTED_PREFIXES)


class FilterModule:
    """The filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by their names in templates."""
        return {
            "farmhand_fingerprint": fingerprint,
            "farmhand_redact": redact,
            "farmhand_digest": digest,
            "farmhand_seconds": seconds,
            "farmhand_systemd_span": systemd_span,
            "farmhand_secret_names": secret_names,
            "farmhand_upstream": upstream,
            "farmhand_accept_env": accept_env,
        }
