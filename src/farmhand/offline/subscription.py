"""One text task through the operator's own, unmodified `claude -p`, on their login. Disabled unless they allow it.

docs/subscription.md has the provider's position. The CLI gets no tools, no project or user settings, and no credential
but the login. If a metered key reaches it all the same, the call is ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

from farmhand.core import claude
from farmhand.core.errors import Refused, TaskFailed
from farmhand.core.scratch import private_directory
from farmhand.core.task import DEFAULT_MODEL, DEFAULT_TIMEOUT_S, resolve_model
from farmhand.subscription import gate
from farmhand.subscription.command import command
from farmhand.subscription.environment import from_nothing
from farmhand.subscription.login import find_login
from farmhand.subscription.stream import CliRun

#: What finds the program and the login.
_KEPT = frozenset({"CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "HOME", "LOGNAME", "PATH", "USER"})


def refusal(task: dict[str, Any], *, allowed: bool) -> Refused | None:
    """Return why the policy does not allow the task; None if it does."""
    if not allowed:
        hint = "read docs/subscription.md; allow_subscription = true in config.toml turns it on"
        return Refused("the fallback to your own subscription is off", hint=hint, code="subscription_off")
    if task.get("tools") or task.get("network", "none") != "none":
        message = "a task with tools never runs on your own subscription"
    elif task.get("schema") is not None:
        message = "only text runs on your own subscription, and this task has a schema"
    elif task.get("files") or task.get("history"):
        message = "only one prompt of text runs on your own subscription: no pictures, no PDFs, no conversation"
    else:
        return None
    return Refused(message, hint="wait for a farm host: --fallback queue", code="subscription_text_only")


def environment(environ: Mapping[str, str], task: dict[str, Any], timeout_s: float) -> dict[str, str]:
    """Return the CLI's environment: nothing of the operator's own but what finds the login, and PATH."""
    return from_nothing(environ, {}, keep=_KEPT, timeout_s=timeout_s, max_tokens=task.get("max_tokens"))


def answer(task: dict[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Run the task and return its result, in the wire's format, with `residency` subscription.

    Ask `refusal` first. Raise NotConfigured if the CLI or the login is missing, Refused if the CLI would bill a metered
    key, TaskFailed for an error of the CLI.
    """
    timeout_s = float(task.get("timeout_s") or DEFAULT_TIMEOUT_S)
    child_environ = environment(environ, task, timeout_s)
    program = check_ready(environ, child_environ)
    model = resolve_model(str(task.get("model") or DEFAULT_MODEL))
    system = str(task.get("system") or claude.SYSTEM)
    run = _run_cli(program, model, system, child_environ, claude.user_message(str(task["prompt"])), timeout_s)
    said = run.result
    return {
        "id": task["id"],
        "state": "succeeded",
        "text": str(said.get("result") or ""),
        "structured": None,
        "model": model,
        "engine": "cli",
        "residency": "subscription",
        "usage": run.usage(),
        "cost_usd": None,
        "attempts": 1,
        "stop_reason": str(said.get("stop_reason") or ""),
        "error": None,
    }


def check_ready(environ: Mapping[str, str], child_environ: Mapping[str, str]) -> str:
    """Check, without a request, that CLI and login exist and the CLI would use the login. Return its path."""
    program = gate.find_program("claude", environ.get("PATH"))
    find_login(environ)
    gate.check_plan(program, child_environ)
    return program


def _run_cli(program: str, model: str, system: str, environ: dict[str, str], stdin: bytes, timeout_s: float) -> CliRun:
    """Run the CLI in a new empty directory, so that no project files reach it, and return what it said.

    It is killed with its child processes when the time is over, when it names a metered key, and on a signal. Raise
    Refused, TaskFailed.
    """
    run = CliRun()
    with private_directory() as private, tempfile.TemporaryFile() as prompt, tempfile.TemporaryFile() as errors:
        empty = private / "empty"
        empty.mkdir()
        system_file = private / "system"
        system_file.write_text(system, "utf-8")
        prompt.write(stdin)
        prompt.seek(0)
        process = subprocess.Popen(
            command(program, model, system_file),
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
                    for line in process.stdout or ():
                        run.take(line)
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
    if (failure := run.failure(status, stderr)) is not None:
        raise failure
    return run
