"""The `cli` engine: one real `claude -p` process per attempt, in a sandbox that systemd creates.

The sandbox is reached through `task.sock`; `agent/sandbox.py` is the other end. The CLI gets the task token as its API
key, the relay inside the sandbox as its API, and its prompt on stdin, as data. It neither retries nor sends telemetry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from farmhand.agent.config import Config
from farmhand.agent.engines import Answer, EngineError
from farmhand.agent.engines.answers import as_object, check_answer, from_object
from farmhand.agent.engines.api import without_dialect
from farmhand.agent.engines.output import MAX_LINE, CliOutput, CliResult, SandboxEnd, too_much
from farmhand.agent.engines.sandboxes import ALL, Line, SandboxCleanup, SandboxPool, unit_of
from farmhand.core import claude
from farmhand.core.keys import redact
from farmhand.core.task import Task
from farmhand.meter import Grant, Grants

_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "SHELL": "/bin/bash", **claude.SWITCHES}


def arguments(task: Task, config: Config, model: str) -> list[str]:
    """Return the CLI's argument vector for `task`."""
    argv = claude.arguments(config.claude_path, model=model, system=task.system, tools=task.tools)
    if task.tools:
        # There is no user to ask for permission; the sandbox confines the task.
        argv += ["--permission-mode", "bypassPermissions"]
    if task.schema is not None:
        argv += ["--json-schema", msgspec.json.encode(without_dialect(as_object(task.schema))).decode()]
    return argv


def environment(task: Task, token: str, timeout_s: float) -> dict[str, str]:
    """Return the CLI's whole environment except HOME and ANTHROPIC_BASE_URL, which the sandbox adds."""
    return _ENVIRONMENT | {
        "ANTHROPIC_API_KEY": token,
        "API_TIMEOUT_MS": str(int(timeout_s * 1000)),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(task.max_tokens),
    }


class CliEngine:
    """The engine that runs tasks through the claude CLI in systemd's sandboxes."""

    makes_requests = True

    def __init__(self, config: Config, grants: Grants) -> None:
        self._config = config
        self._grants = grants
        runtime = Path(config.runtime_dir)
        # Sandboxes that hang count too: there are never more than these, whatever tasks do to theirs.
        permits = asyncio.Semaphore(config.slots_cli + config.sandbox_spares)
        self._sandboxes = {
            "none": SandboxPool(runtime / "task.sock", config.sandbox_spares, MAX_LINE, permits),
            "full": SandboxPool(runtime / "task-full.sock", 0, MAX_LINE, permits),
        }
        self._end_socket = runtime / "task-end.sock"
        self._leaving = SandboxCleanup(self._end_socket, permits.release)

    async def clear(self) -> None:
        """End the sandboxes that an earlier agent left behind. Call this before the first task."""
        if self._end_socket.exists():
            await self._leaving.end(ALL)

    def close(self) -> None:
        """End the idle sandboxes."""
        for spares in self._sandboxes.values():
            spares.close()
        self._leaving.close()

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Answer:
        """Run one CLI process; see `Engine.run`. The task token is revoked when this returns."""
        token = self._grants.issue(grant)
        try:
            output = await self._converse(
                task, grant, token, on_text if task.schema is None else lambda _t: None, timeout_s
            )
        finally:
            await self._grants.revoke(token)
        return await self._judge(task, grant, output)

    async def _converse(
        self, task: Task, grant: Grant, token: str, on_text: Callable[[str], None], timeout_s: float
    ) -> CliOutput:
        data = claude.user_message(task.prompt)
        order = {
            "argv": arguments(task, self._config, grant.model),
            "env": environment(task, token, timeout_s),
            "stdin_bytes": len(data),
            "meter_socket": f"{self._config.runtime_dir}/meter.sock",
        }
        reader, writer = await self._connect(task)
        output = CliOutput(on_text)
        unit: str | None = None
        try:
            writer.write(msgspec.json.encode(order) + b"\n" + data)
            if (unit := unit_of(first := await reader.readline())) is None:
                output.take(first)
            # The sandbox's exit line is the last one. The connection ends only after systemd has removed the unit.
            while output.ended is None and (line := await reader.readline()):
                output.take(line)
        except ValueError:
            raise too_much() from None
        except OSError as error:
            raise EngineError("agent_error", f"the task's sandbox broke off: {error}", retryable=True) from None
        finally:
            self._leaving.see_out((reader, writer), unit or "")
        return output

    async def _connect(self, task: Task) -> Line:
        spares = self._sandboxes[task.network]
        try:
            return await spares.take()
        except OSError as error:
            unit = "jada-task.socket" if task.network == "none" else "jada-task-full.socket"
            raise EngineError(
                "agent_error",
                f"no sandbox to be had: {spares.path}: {error.strerror}",
                hint=f"see: systemctl status {unit}",
            ) from None

    async def _judge(self, task: Task, grant: Grant, output: CliOutput) -> Answer:
        """Return the answer, or raise the error that explains why there is none.

        An answer needs at least one turn, no `is_error`, and a process that exited with 0; `subtype` means nothing. The
        API must have answered a request of the task: a task with tools can write a result line itself.
        """
        ended, said = output.ended, output.said
        if ended is None:
            raise EngineError(
                "agent_error",
                "the task's sandbox ended without a word",
                hint="see the journal of jada-task@",
                retryable=True,
            )
        if ended.oom:
            raise EngineError(
                "memory_limit", "the task met its memory limit and was ended", hint="raise jada_agent_task_memory_max"
            )
        if grant.cut_short and grant.problem is None:
            return self._cut_at_max_tokens(task, output)
        if grant.problem is not None:
            raise grant.problem
        if ended.rc != 0 or said is None or said.is_error or not said.num_turns:
            raise self._failure(ended, said)
        if not grant.charges:
            raise EngineError(
                "no_request",
                "the claude CLI reported an answer, and the API has answered no request of the task",
                hint="a task with tools may have written it itself: look at its prompt and what it read",
            )
        if task.schema is None:
            return Answer(text=_whole(said.result or "", output), stop_reason=output.stop_reason)
        answer = await check_answer(task.schema, from_object(task.schema, said.structured()))
        return Answer(text="", structured=answer, stop_reason=output.stop_reason)

    @staticmethod
    def _cut_at_max_tokens(task: Task, output: CliOutput) -> Answer:
        """Return the text so far, which the CLI drops. Raise EngineError for a structured answer, now incomplete."""
        if task.schema is not None:
            raise EngineError("no_answer", "the answer was cut off at max_tokens", hint="raise --max-tokens")
        return Answer(text="".join(output.text), stop_reason="max_tokens")

    @staticmethod
    def _failure(ended: SandboxEnd, said: CliResult | None) -> EngineError:
        words = (said.result if said is not None else "") or ended.stderr or "no output"
        how = f"signal {ended.signal}" if ended.signal else f"exit status {ended.rc}"
        message = " ".join(redact(words[:10_000]).split())[:300]
        return EngineError("cli_error", f"the claude CLI failed ({how}): {message}")


def _whole(result: str, output: CliOutput) -> str:
    """Return the text of the last message.

    The CLI's own result is only its last block, and lacks the text of `content_block_start`. Measured with 2.1.330.
    """
    streamed = "".join(output.text)
    return streamed if streamed.endswith(result) else result
