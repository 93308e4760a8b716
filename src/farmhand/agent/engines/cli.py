"""The `cli` engine: the real `claude -p`, one per attempt, in a sandbox that systemd makes for it.

The sandbox is reached over `task.sock` (`agent/sandbox.py` is its other end). The CLI gets the task token as its key
and the relay inside the sandbox as its API; its prompt comes by stdin as data; it neither retries nor phones home.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from farmhand.agent.config import Config
from farmhand.agent.engines import Answer, EngineError
from farmhand.agent.engines.answers import as_object, check_answer, from_object
from farmhand.meter import Grant, Grants
from farmhand.task import Task
from farmhand.wire.keys import redact

#: Longest line of the CLI's output: a whole message with what a tool read.
_MAX_LINE = 64 * 1024 * 1024
_SYSTEM = "Answer the user's task. Be brief and exact."
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "SHELL": "/bin/bash",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    "CLAUDE_CODE_DISABLE_THINKING": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
}


def arguments(task: Task, config: Config, model: str) -> list[str]:
    """The lean invocation. Each flag is measured in FACTS: with them a text task sends 1.1 KB instead of 76 to 115."""
    argv = [config.claude_path, "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
    argv += ["--include-partial-messages", "--no-session-persistence", "--setting-sources", "", "--strict-mcp-config"]
    argv += ["--disable-slash-commands", "--model", model, "--system-prompt", task.system or _SYSTEM]
    argv += ["--tools", ",".join(task.tools)]
    if task.tools:
        # Nobody is there to ask; the sandbox is what holds the task.
        argv += ["--permission-mode", "bypassPermissions"]
    if task.schema is not None:
        argv += ["--json-schema", msgspec.json.encode(as_object(task.schema)).decode()]
    return argv


def environment(task: Task, token: str, timeout_s: float) -> dict[str, str]:
    """The CLI's whole environment, but for HOME and ANTHROPIC_BASE_URL, which the sandbox adds."""
    return _ENVIRONMENT | {
        "ANTHROPIC_API_KEY": token,
        "API_TIMEOUT_MS": str(int(timeout_s * 1000)),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(task.max_tokens),
    }


def stdin(task: Task) -> bytes:
    """The prompt as one user message of stream-json, so that it is data.

    The CLI takes a message whose last text begins with `/name` for a command, in this form too. The blank block behind
    the prompt prevents that, and the CLI drops it: the API gets the prompt alone. Measured with 2.1.197 and 2.1.330.
    """
    content = [{"type": "text", "text": task.prompt}, {"type": "text", "text": "\n"}]
    message = {"role": "user", "content": content}
    return msgspec.json.encode({"type": "user", "message": message}) + b"\n"


class _Output:
    """Reads the CLI's stream-json lines and the sandbox's closing line."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self.result: dict[str, Any] | None = None
        self.exit: dict[str, Any] | None = None
        self.stop_reason = ""
        self.text: list[str] = []
        self._on_text = on_text

    def take(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if not isinstance(event, dict):
            return
        match event.get("type"):
            case "stream_event":
                self._stream(event.get("event") or {})
            case "result":
                self.result = event
            case "farmhand.exit":
                self.exit = event

    def _stream(self, event: dict[str, Any]) -> None:
        delta = event.get("delta") or {}
        match event.get("type"):
            case "message_start" if self.text:
                # The next message, after a tool's answer.
                self._on_text("\n\n")
                self.text.clear()
            case "content_block_delta" if delta.get("type") == "text_delta":
                self.text.append(str(delta.get("text", "")))
                self._on_text(self.text[-1])
            case "message_delta":
                self.stop_reason = str(delta.get("stop_reason") or self.stop_reason)


class CliEngine:
    """Runs tasks through the claude CLI in systemd's sandboxes."""

    def __init__(self, config: Config, grants: Grants) -> None:
        self._config = config
        self._grants = grants

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Answer:
        """One CLI process; see `Engine.run`. The task token dies when this returns."""
        token = self._grants.issue(grant)
        try:
            output = await self._converse(
                task, grant, token, on_text if task.schema is None else lambda _t: None, timeout_s
            )
        finally:
            self._grants.revoke(token)
        return self._judge(task, grant, output)

    async def _converse(
        self, task: Task, grant: Grant, token: str, on_text: Callable[[str], None], timeout_s: float
    ) -> _Output:
        data = stdin(task)
        order = {
            "argv": arguments(task, self._config, grant.model),
            "env": environment(task, token, timeout_s),
            "stdin_bytes": len(data),
            "meter_socket": f"{self._config.runtime_dir}/meter.sock",
        }
        reader, writer = await self._connect(task)
        output = _Output(on_text)
        try:
            writer.write(msgspec.json.encode(order) + b"\n" + data)
            while line := await reader.readline():
                output.take(line)
        except (OSError, ValueError) as error:
            raise EngineError("agent_error", f"the task's sandbox broke off: {error}", retryable=True) from None
        finally:
            # Hanging up is what ends a sandbox early.
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return output

    async def _connect(self, task: Task) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = "task.sock" if task.network == "none" else "task-full.sock"
        path = Path(self._config.runtime_dir) / name
        try:
            return await asyncio.open_unix_connection(path, limit=_MAX_LINE)
        except OSError as error:
            unit = "jada-task.socket" if task.network == "none" else "jada-task-full.socket"
            raise EngineError(
                "agent_error", f"no sandbox to be had: {path}: {error.strerror}", hint=f"see: systemctl status {unit}"
            ) from None

    def _judge(self, task: Task, grant: Grant, output: _Output) -> Answer:
        """Success is an answer with turns, without is_error, from a process that ended well; subtype means nothing."""
        ended, result = output.exit, output.result
        if ended is None:
            raise EngineError(
                "agent_error",
                "the task's sandbox ended without a word",
                hint="see the journal of jada-task@",
                retryable=True,
            )
        if ended.get("oom"):
            raise EngineError(
                "memory_limit", "the task met its memory limit and was ended", hint="raise jada_agent_task_memory_max"
            )
        if grant.cut_short and grant.problem is None:
            return self._cut_at_max_tokens(task, output)
        if grant.problem is not None:
            raise grant.problem
        if ended.get("rc") != 0 or result is None or result.get("is_error") or not result.get("num_turns"):
            raise self._failure(ended, result)
        if task.schema is None:
            return Answer(text=str(result.get("result", "")), stop_reason=output.stop_reason)
        if "structured_output" not in result:
            raise EngineError("no_answer", "the model gave no structured answer", retryable=True)
        answer = check_answer(task.schema, from_object(task.schema, result["structured_output"]))
        return Answer(text="", structured=answer, stop_reason=output.stop_reason)

    @staticmethod
    def _cut_at_max_tokens(task: Task, output: _Output) -> Answer:
        """The text so far, which the CLI itself drops; half a structured answer is none."""
        if task.schema is not None:
            raise EngineError("no_answer", "the answer was cut off at max_tokens", hint="raise --max-tokens")
        return Answer(text="".join(output.text), stop_reason="max_tokens")

    @staticmethod
    def _failure(ended: dict[str, Any], result: dict[str, Any] | None) -> EngineError:
        said = str((result or {}).get("result") or ended.get("stderr") or "no output")
        how = f"signal {ended['signal']}" if ended.get("signal") else f"exit status {ended.get('rc')}"
        message = " ".join(redact(said).split())[:300]
        return EngineError("cli_error", f"the claude CLI failed ({how}): {message}")
