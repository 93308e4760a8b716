"""The last answer, kept on this machine for `claude-cheap --last`: one file, private to the operator."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

from farmhand.cli import render
from farmhand.core.errors import UsageError
from farmhand.core.files import xdg

#: How long it is kept, as what farmhand flush keeps. Seconds.
KEEP_S = 30 * 86_400.0


def _path() -> str:
    return os.path.join(xdg("XDG_STATE_HOME"), "farmhand", "last.json")


def keep(result: dict[str, Any]) -> None:
    """Keep a result in the place of the one before. What cannot be kept is no failure of the task."""
    path = _path()
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        beside = f"{path}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(beside, flags, 0o600), "wb") as file:  # not synced: it is worth no wait
                file.write(json.dumps(result, ensure_ascii=False).encode("utf-8", "surrogatepass"))
            os.replace(beside, path)
        except OSError:  # a full disk: no half of an answer stays
            os.unlink(beside)


def show(*, as_json: bool, extract: str) -> int:
    """Print the last answer again. Raises UsageError."""
    path = _path()
    try:
        with open(path, "rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > KEEP_S:
                os.unlink(path)
                raise FileNotFoundError
            result = json.loads(file.read())
        if not isinstance(result, dict) or result.get("state") != "succeeded":
            raise ValueError
    except (OSError, ValueError, RecursionError):
        hint = f"an answer is kept for {KEEP_S / 86_400:g} days; farmhand list shows the tasks of the hosts"
        raise UsageError("there is no last answer here", code="no_answer", hint=hint) from None
    return render.Printer(stream=False, extract=extract).report(result, as_json=as_json)
