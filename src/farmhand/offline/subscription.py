"""One text task through the operator's own, unmodified `claude -p`, on their login. Disabled unless they allow it.

docs/subscription.md has the provider's position. The CLI gets no tools, no project or user settings, and no credential
but the login. If a metered key reaches it all the same, the call is ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from farmhand.core import claude
from farmhand.core.child import scrubbed
from farmhand.core.errors import NotConfigured, Refused, TaskFailed
from farmhand.core.keys import redact
from farmhand.core.scratch import private_directory
from farmhand.core.task import DEFAULT_MODEL, DEFAULT_TIMEOUT_S, resolve_model
from farmhand.offline.login import FIX, find_login

#: Switches for other clouds, removed in addition to what no child process gets.
_PRIVATE = re.compile(r"VERTEX_|CLOUD_ML_REGION$")
#: The two variables that locate the login.
_LOGIN = ("CLAUDE_CONFIG_DIR", "CLAUDE_CODE_OAUTH_TOKEN")
#: The authentication methods of `claude auth status` that use a plan.
PLAN = frozenset({"claude.ai", "oauth_token"})
_AUTH_STATUS_S = 30.0


def refusal(task: dict[str, Any], *, allowed: bool) -> Refused | None:
    """Return why the policy does not allow the task; None if it does."""
    if not allowed:
        hint = "read docs/subscription.md; allow_subscription = true in config.toml turns it on"
        return Refused("the fallback to your own subscription is off", hint=hint, code="subscription_off")
    if task.get("tools") or task.get("network", "none") != "none":
        message = "a task with tools never runs on your own subscription"
    elif task.get("schema") is not None:
        message = "only text runs on your own subscription, and this task has a schema"
    else:
        return None
    return Refused(message, hint="wait for a farm host: --fallback queue", code="subscription_text_only")


def environment(environ: Mapping[str, str], task: dict[str, Any], timeout_s: float) -> dict[str, str]:
    """Return the CLI's environment: the operator's own without credentials and switches, except the login."""
    kept = {name: value for name, value in scrubbed(environ, keep=_LOGIN).items() if not _PRIVATE.match(name)}
    limit = {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(task["max_tokens"])} if "max_tokens" in task else {}
    return kept | claude.SWITCHES | limit | {"API_TIMEOUT_MS": str(int(timeout_s * 1000))}


def answer(task: dict[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Run the task and return its result, in the wire's format, with `residency` subscription.

    Ask `refusal` first. Raise NotConfigured if the CLI or the login is missing, Refused if the CLI would bill a metered
    key, TaskFailed for an error of the CLI.
    """
    timeout_s = float(task.get("timeout_s") or DEFAULT_TIMEOUT_S)
    child_environ = environment(environ, task, timeout_s)
    program = check_ready(environ, child_environ)
    model = resolve_model(str(task.get("model") or DEFAULT_MODEL))
    argv = claude.arguments(program, model=model, system=str(task.get("system") or ""))
    said = _run_cli(argv, child_environ, claude.user_message(str(task["prompt"])), timeout_s)
    return {
        "id": task["id"],
        "state": "succeeded",
        "text": str(said.get("result") or ""),
        "structured": None,
        "model": model,
        "engine": "cli",
        "residency": "subscription",
        "usage": _usage(said.get("modelUsage")),
        "cost_usd": None,
        "attempts": 1,
        "stop_reason": str(said.get("stop_reason") or ""),
        "error": None,
    }


def check_ready(environ: Mapping[str, str], child_environ: Mapping[str, str]) -> str:
    """Check, without a request, that CLI and login exist and the CLI would use the login. Return its path."""
    program = shutil.which("claude", path=environ.get("PATH"))
    if program is None:
        hint = "install it: npm install -g @anthropic-ai/claude-code"
        raise NotConfigured("the claude CLI is not installed on this machine", hint=hint, code="no_claude")
    find_login(environ)
    said = auth_status(program, child_environ)
    if not said.get("loggedIn"):
        raise NotConfigured("claude says that it is not logged in", hint=FIX, code="no_login")
    if said.get("authMethod") not in PLAN:
        raise _would_bill(str(said.get("apiKeySource") or said.get("authMethod")))
    return program


def auth_status(program: str, environ: Mapping[str, str], *, settings: bool = False) -> dict[str, Any]:
    """Return the output of `claude auth status --json`, which sends no request to a model.

    With `settings`, the user's settings apply as well. Measured with 2.1.330: {"loggedIn", "authMethod": "claude.ai" |
    "oauth_token" | "api_key" | "api_key_helper" | …, "apiKeySource", "subscriptionType"}; exit status 1 if not logged
    in. Raise NotConfigured.
    """
    argv = [program, *([] if settings else ["--setting-sources", ""]), "auth", "status", "--json"]
    try:
        done = subprocess.run(
            argv, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, timeout=_AUTH_STATUS_S, check=False
        )
        said = json.loads(done.stdout)
    except (OSError, ValueError, RecursionError, subprocess.TimeoutExpired):
        said = None
    if not isinstance(said, dict):
        hint = "run it by itself to see why; an old CLI does not know it: claude update"
        raise NotConfigured("`claude auth status --json` gave no answer", hint=hint, code="no_claude")
    return said


def _would_bill(source: str) -> Refused:
    return Refused(
        f"claude would not use the plan's login but {redact(source)[:80]}",
        hint="farmhand doctor shows where that comes from",
        code="subscription_off",
    )


def _run_cli(argv: list[str], environ: dict[str, str], stdin: bytes, timeout_s: float) -> dict[str, Any]:
    """Run the CLI in a new empty directory, so that no project files reach it, and return its result line.

    It is killed with its child processes when the time is over, when it names a metered key, and on a signal. A
    successful result has turns and no is_error, and exit status 0; subtype means nothing. Raise Refused, TaskFailed.
    """
    with private_directory() as private, tempfile.TemporaryFile() as prompt, tempfile.TemporaryFile() as errors:
        empty = private / "empty"
        empty.mkdir()
        prompt.write(stdin)
        prompt.seek(0)
        process = subprocess.Popen(
            argv,
            env=environ,
            cwd=empty,
            stdin=prompt,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        end = time.monotonic() + timeout_s
        timer = threading.Timer(timeout_s, kill)
        timer.daemon = True
        timer.start()
        try:
            with process:
                try:
                    said = _result_line(process.stdout or ())
                    status = process.wait()
                except BaseException:
                    kill()
                    raise
        finally:
            timer.cancel()
        errors.seek(0)
        stderr = errors.read(10_000).decode("utf-8", "replace")
    if status == -signal.SIGKILL and time.monotonic() >= end:
        raise TaskFailed("claude did not answer in the task's time", hint="raise --timeout", code="timeout")
    if status != 0 or said.get("is_error") or not said.get("num_turns"):
        words = " ".join(redact(str(said.get("result") or stderr or "no output")).split())[:300]
        raise TaskFailed(f"claude failed on your login (exit status {status}): {words}", code="cli_error")
    return said


def _result_line(lines: Iterable[bytes]) -> dict[str, Any]:
    """Return the last result of stream-json, {} if there is none. Raise Refused if a metered key is in use."""
    result: dict[str, Any] = {}
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, dict):
            continue
        if value.get("subtype") == "init" and value.get("apiKeySource") not in ("none", None):
            raise _would_bill(str(value["apiKeySource"]))
        if value.get("type") == "result":
            result = value
    return result


def _usage(by_model: Any) -> dict[str, int]:
    """Return the wire's usage from the CLI's `modelUsage`; the CLI's own `usage` is zero after a fallback."""
    names = {
        "input_tokens": "inputTokens",
        "output_tokens": "outputTokens",
        "cache_creation_input_tokens": "cacheCreationInputTokens",
        "cache_read_input_tokens": "cacheReadInputTokens",
    }
    used = [each for each in by_model.values() if isinstance(each, dict)] if isinstance(by_model, dict) else []
    return {ours: sum(int(each.get(theirs) or 0) for each in used) for ours, theirs in names.items()}
