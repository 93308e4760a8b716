"""What goes wrong on a host, in the package's terms and in words for people."""

from __future__ import annotations

import re
from typing import Any

from farmhand.core.errors import FarmhandError, NotConfigured, Refused, WireError
from farmhand.core.keys import redact

_MONEY = re.compile(r"credit|billing|balance|spend|402", re.IGNORECASE)


def refused_key(host: str, detail: str) -> FarmhandError:
    """The API refused the key: for want of money, or because it is not one."""
    kind = Refused if _MONEY.search(detail) else NotConfigured
    hint = "what is done is kept: put that right and give the same command"
    return kind(f"{host}: {redact(detail)}", code="key_refused", hint=hint)


def reason(waiting: list[dict[str, Any]]) -> str:
    """Why tasks wait, where that is not just that all slots are taken."""
    for wait in waiting:
        if wait.get("reason") not in ("slots", "no_key"):
            return redact(str(wait.get("detail") or wait.get("reason") or ""))[:120]
    return ""


def from_wire(problem: Any, host: str) -> FarmhandError:
    """The package's error for one in a host's answer."""
    about = problem if isinstance(problem, dict) else {}
    code, message = str(about.get("code") or "agent_error"), str(about.get("message") or "no reason given")
    said = message if host in message else f"{host}: {message}"
    if code == "no_such_route":
        code, said = "agent_too_old", f"{host}: its agent is too old for batches"
    return WireError(code, redact(said), redact(str(about.get("hint") or ""))).at()
