"""What a worker's reasons to wait mean: an error that ends the batch, or a line for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from farmhand.batch.worker_state import WorkerState
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, Refused
from farmhand.core.keys import redact
from farmhand.core.readable import counted

_MONEY = re.compile(r"credit|billing|balance|spend|402", re.IGNORECASE)


def refused_key(one: WorkerState, wait: dict[str, Any]) -> FarmhandError:
    """Return the error for a key that the API refused: for lack of money, or because it is invalid."""
    detail = str(wait.get("detail") or "the API refused the key")
    kind = Refused if _MONEY.search(detail) else NotConfigured
    hint = "what is done is kept: put that right and give the same command"
    return kind(f"{one.name}: {redact(detail)}", code="key_refused", hint=hint)


def reason(waiting: list[dict[str, Any]]) -> str:
    """Return why tasks wait, unless merely all slots are taken."""
    for wait in waiting:
        if wait.get("reason") not in ("slots", "no_key"):
            return redact(str(wait.get("detail") or wait.get("reason") or ""))[:200]
    return ""


def dark(errors: Sequence[FarmhandError]) -> FarmUnreachable:
    """Return the error of a batch whose hosts have not answered for too long. `errors` are why, by host."""
    first = errors[0] if errors else FarmUnreachable("no farm host answers")
    more = f" (and {counted(len(errors) - 1, 'more host')})" if len(errors) > 1 else ""
    kind = type(first) if isinstance(first, FarmUnreachable) else FarmUnreachable
    return kind(f"no farm host answers: {first.message}{more}", hint=first.hint, code=first.code)
