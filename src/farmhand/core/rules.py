"""The rules for every task, checked by clients, and by the agent when it accepts tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from farmhand.core import attachments, schemas
from farmhand.core.ids import MAX_PRIORITY, MAX_TOKENS
from farmhand.core.keys import redact
from farmhand.core.pots import NAME
from farmhand.core.task import MAX_PROMPT_BYTES, MODELS, TASK_ID, TOOLS, Repository, Task

#: A larger budget is a mistake, and its pico-dollars would not fit the ledger's integers.
MAX_USD = 1_000_000
#: The budgets that are not a task's own, and how an older agent's refusal names one.
_SHARED = ("batch", "day")
_SHARED_IN_WORDS = re.compile(r"budget of the (batch|day)\b")
#: Limit on the UTF-8 bytes of all labels and the work class.
MAX_LABEL_BYTES = 64 * 1024
_MODEL_HINT = f"use {', '.join(MODELS)} or a full id such as {MODELS['haiku']}"
_INVALID = "invalid_task"
#: The places at which a bundle's history is cut: with a depth of 1 there is one.
MAX_SHALLOW = 10_000
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def is_budget(amount: Decimal) -> bool:
    """Return whether `amount`, in US$, is a valid budget: above 0, and not above MAX_USD."""
    return amount.is_finite() and 0 < amount <= MAX_USD


def by_shared_budget(error: Mapping[str, Any]) -> bool:
    """Return whether a task's error is a budget's that is not its own: it has not started, and is not at fault."""
    if error.get("code") != "budget":
        return False
    full = error.get("budget")
    return full["of"] in _SHARED if full else _SHARED_IN_WORDS.search(str(error.get("message") or "")) is not None


class Broken(NamedTuple):
    """A rule that a task breaks: a stable code, a one-line message, a hint."""

    code: str
    message: str
    hint: str = ""


def check(task: Task, *, deep: bool = True) -> Broken | None:
    """Return the first rule that `task` breaks, or None. Rules that depend on a host are checked on the host.

    Without `deep`, check only the size of its schema, which takes no time (see `farmhand.core.schemas`).
    """
    return _identity(task) or _text(task) or _options(task) or _files(task, deep=deep) or _schema(task, deep=deep)


def _identity(task: Task) -> Broken | None:
    if task.is_named_by_key:
        what = "an API key stands in its id, batch, model, tools, work class or labels"
        return Broken("key_in_task", what, "take it out: it would be sent and kept")
    if not TASK_ID.fullmatch(task.id):
        return Broken(_INVALID, f"the id does not match {TASK_ID.pattern}")
    if task.pot and not NAME.fullmatch(task.pot):
        return Broken(_INVALID, f"the pot's name does not match {NAME.pattern}")
    if task.batch and not TASK_ID.fullmatch(task.batch):
        return Broken(_INVALID, f"the batch's name does not match {TASK_ID.pattern}")
    return None


def _text(task: Task) -> Broken | None:
    if not task.prompt.strip():
        return Broken("empty_prompt", "the prompt is empty")
    labels = "".join([task.work_class, *task.labels, *task.labels.values()])
    for one, these, text, most, hint in (
        ("the prompt has", "the prompt has", task.prompt, MAX_PROMPT_BYTES, "split it"),
        ("the system text has", "the system text has", task.system, MAX_PROMPT_BYTES, "split it"),
        ("a label or the work class has", "labels and work class have", labels, MAX_LABEL_BYTES, ""),
    ):
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            return Broken(_INVALID, f"{one} half a character (a lone surrogate) at {error.start}", "remove it")
        if size > most:
            return Broken("too_large", f"{these} {size} bytes, the limit is {most}", hint)
    for name, text in (("prompt", task.prompt), ("system text", task.system)):
        if "\0" in text:
            return Broken(_INVALID, f"the {name} has a NUL character at {text.index(chr(0))}", "remove it")
    return None


def _options(task: Task) -> Broken | None:
    unknown = sorted(set(task.tools) - TOOLS)
    if unknown:
        return Broken(_INVALID, f"unknown tool {', '.join(unknown)}", f"known: {', '.join(sorted(TOOLS))}")
    if (task.tools or task.repo) and task.engine == "api":
        what = "tools need" if task.tools else "a repository needs"
        return Broken(_INVALID, f"{what} the engine cli", "leave engine at auto")
    if task.repo is not None and (broken := _repository(task.repo)):
        return Broken(_INVALID, broken)
    if task.economy and (task.tools or task.repo or task.engine == "cli" or task.network == "full"):
        return Broken(_INVALID, "economy is for text tasks: no tools, no engine cli, no network", "leave economy out")
    # Only the API knows which full ids exist.
    model = task.model
    if model not in MODELS and not ("-" in model and len(model) <= 128 and re.fullmatch(r"[\w.:@/-]+", model)):
        return Broken("unknown_model", f"unknown model {task.model!r}", _MODEL_HINT)
    if not 1 <= task.max_tokens <= MAX_TOKENS:
        return Broken(_INVALID, f"max_tokens must be 1 to {MAX_TOKENS}")
    if not 0 <= task.timeout_s < float("inf"):
        return Broken(_INVALID, "timeout_s must be 0 or more")
    if abs(task.priority) > MAX_PRIORITY:
        return Broken(_INVALID, f"priority must be within ±{MAX_PRIORITY}")
    if task.max_usd is not None and not is_budget(task.max_usd):
        return Broken(_INVALID, f"max_usd must be above 0 and at most {MAX_USD}")
    return None


def _files(task: Task, *, deep: bool) -> Broken | None:
    """Return the first rule that the task's pictures, PDFs and earlier turns break, or None."""
    if not task.files and not task.history:
        return None
    cli = task.resolved_engine == "cli"
    if cli and task.history:
        return Broken(_INVALID, "a conversation needs the engine api: no tools, no repository", "start a new one")
    texts = [task.prompt, task.system, *(text for turn in task.history for text in (turn.prompt, turn.answer))]
    if not all(text.strip() for text in texts[2:]):
        return Broken(_INVALID, "an earlier turn of the conversation is empty")
    try:
        size = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError:
        return Broken(_INVALID, "an earlier turn has half a character (a lone surrogate)", "start a new conversation")
    files = [*(file for turn in task.history for file in turn.files), *task.files]
    if any(redact(file.name) != file.name for file in files):
        return Broken("key_in_task", "an API key stands in a file's name", "take it out: it would be sent and kept")
    most = attachments.MAX_TOTAL_CLI if cli else attachments.MAX_TOTAL
    what = attachments.problem(files, history=size, most=most, deep=deep)
    return Broken("invalid_file", what, attachments.HINT) if what else None


def _repository(repo: Repository) -> str:
    if not all(_COMMIT.fullmatch(commit) for commit in (repo.commit, *repo.shallow)):
        return "a repository's commits are named by their whole ids"
    if len(repo.shallow) > MAX_SHALLOW:
        return f"a repository's history is cut in {len(repo.shallow)} places, the limit is {MAX_SHALLOW}"
    parts = repo.subdir.split("/") if repo.subdir else []
    if "\0" in repo.subdir or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        return f"{repo.subdir!r} is not a directory of a repository"
    return ""


def _schema(task: Task, *, deep: bool) -> Broken | None:
    message = "" if task.schema is None else (schemas.problem if deep else schemas.too_large)(task.schema)
    return Broken("invalid_schema", message) if message else None
