"""The task described by farmhand_task's arguments, and the failure in the answer of `jada-agent task`."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from farmhand.core import attachments
from farmhand.core.decoding import broken, decoded
from farmhand.core.errors import WireError
from farmhand.core.files import read_most
from farmhand.core.ids import MAX_FILE_BYTES, MAX_PROMPT_BYTES, new_task_id
from farmhand.wire.follow import FINAL_STATES

#: The arguments that are fields of a task with the same names.
TASK_FIELDS = (
    "id", "prompt", "system", "model", "engine", "tools", "network", "schema", "max_tokens", "timeout_s", "batch",
    "labels", "priority", "files", "max_usd", "work_class", "economy", "pot",
)  # fmt: skip


def task_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the task described by the arguments; omitted fields get the agent's defaults."""
    task = {name: arguments[name] for name in TASK_FIELDS if arguments.get(name) is not None}
    return {"id": new_task_id()} | task


def read_files(given: dict[str, Any], find: Callable[[str, str], str]) -> None:
    """Put the text of `prompt_file` into `prompt`, and the content of `files` into `files`. Raise WireError.

    `find` is ActionBase._find_needle, which looks for a file on the controller.
    """
    if (name := given["prompt_file"]) is not None:
        if given["prompt"] is not None:
            raise WireError("usage", "prompt and prompt_file exclude each other", "give one of them", 400)
        try:
            given["prompt"] = decoded(_content(find, name, f"prompt_file {name}", MAX_PROMPT_BYTES))
        except UnicodeDecodeError as error:
            raise WireError("invalid_prompt", f"prompt_file {name} {broken(error)}") from None
    if given["prompt"] is None:
        raise WireError("usage", "prompt is missing (give prompt or prompt_file)", status=400)
    given["files"] = [_attachment(find, name) for name in given["files"] or ()] or None


def _attachment(find: Callable[[str, str], str], name: str) -> dict[str, str]:
    """Return the picture or PDF `name` as the wire has it. Raise WireError."""
    data = _content(find, name, f"the file {name}", MAX_FILE_BYTES)
    if not (kind := attachments.media_type(data)):
        raise WireError("invalid_file", f"the file {name} is no {attachments.KINDS}")
    return {"media_type": kind, "data": b64encode(data).decode(), "name": os.path.basename(name)}


def _content(find: Callable[[str, str], str], name: str, what: str, most: int) -> bytes:
    from ansible.errors import AnsibleError

    try:
        return read_most(find("files", os.path.expanduser(name)), most)
    except AnsibleError:
        raise WireError("invalid_file", f"{what} is not on the controller") from None
    except OSError as error:
        raise WireError("invalid_file", f"{what}: {error.strerror}") from None


def failure(answer: dict[str, Any]) -> str | None:
    """Return a one-line error for an unsuccessful answer, or None for success."""
    state, error = answer.get("state"), answer.get("error") or {}
    if not error and (state is None or state == "succeeded" or state not in FINAL_STATES):
        return None
    message, hint = error.get("message") or f"the task is {state}", error.get("hint")
    return f"{message} ({hint})" if hint else str(message)
