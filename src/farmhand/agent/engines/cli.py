"""The `cli` engine: the real `claude -p`, one per attempt, in a sandbox that systemd makes for it.

The sandbox is reached over `task.sock` (`agent/sandbox.py` is its other end). The CLI gets the task token as its key
and the relay inside the sandbox as its API; its prompt comes by stdin as data; it neither retries nor phones home.
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
    """The CLI's argument vector for `task`."""
    argv = claude.arguments(config.claude_path, model=model, system=task.system, tools=task.tools)
    if task.tools:
        # Nobody is there to ask; the sandbox is what holds the task.
        argv += ["--permission-mode", "bypassPermissions"]
    if task.schema is not None:
        argv += ["--json-schema", msgspec.json.encode(without_dialect(as_object(task.schema))).decode()]
    return argv


def environment(task: Task, token: str, timeout_s: float) -> dict[str, str]:
    """The CLI's whole environment, but for HOME and ANTHROPIC_BASE_URL, which the sandbox adds."""
    return _ENVIRONMENT | {
        "ANTHROPIC_API_KEY": token,
        "API_TIMEOUT_MS": str(int(timeout_s * 1000)),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(task.max_tokens),
    }


class CliEngine:
    """Runs tasks through the claude CLI in systemd's sandboxes."""

    makes_requests = True

    def __init__(self, config: Config, grants: Grants) -> None:
        self._config = config
        self._grants = grants
        runtime = Path(config.runtime_dir)
        # What hangs counts: there are never more sandboxes than these, whatever the tasks do to them.
        permits = asyncio.Semaphore(config.slots_cli + config.sandbox_spares)
        self._sandboxes = {
            "none": SandboxPool(runtime / "task.sock", config.sandbox_spares, MAX_LINE, permits),
            "full": SandboxPool(runtime / "task-full.sock", 0, MAX_LINE, permits),
        }
        self._end_socket = runtime / "task-end.sock"
        self._leaving = SandboxCleanup(self._end_socket, permits.release)

    async def clear(self) -> None:
        """Before the first task: end what sandboxes an agent of before has left."""
        if self._end_socket.exists():
            await self._leaving.end(ALL)

    def close(self) -> None:
        """End the sandboxes that wait for a task."""
        for spares in self._sandboxes.values():
            spares.close()
        self._leaving.close()

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Answer:
        """One CLI process; see `Engine.run`. The task token dies when this returns."""
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
            # The sandbox's closing line is the last; its connection ends only when systemd has cleared the unit away.
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
        """Success is an answer with turns, without is_error, from a process that ended well; subtype means nothing.

        And one that the API was asked for: a task with tools can write the line of a result itself.
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
        """The text so far, which the CLI itself drops; half a structured answer is none."""
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
    """The text of the last message, of which the CLI's own result is the last block, without that block's first words.

    Measured with 2.1.330: what stands in `content_block_start` is not in the result.
    """
    streamed = "".join(output.text)
    return streamed if streamed.endswith(result) else result
