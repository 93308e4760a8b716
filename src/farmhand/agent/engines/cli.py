"""The `cli` engine: one real `claude -p` process per attempt, in a sandbox that systemd creates.

The sandbox is reached through `task.sock`; `agent/sandbox.py` is the other end. The CLI gets the task token as its API
key, the relay inside the sandbox as its API, and its prompt on stdin, as data. It neither retries nor sends telemetry.
A task with tools can write anything to its output, so all of it is bounded.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from farmhand.agent.config import Config
from farmhand.agent.engines import EngineError
from farmhand.agent.engines.api import check_answer
from farmhand.agent.engines.sandboxes import SandboxPool, unit_of
from farmhand.agent.task_files import TaskFiles, TaskOutputs
from farmhand.core import claude
from farmhand.core.keys import redact
from farmhand.core.readable import CUT_OFF
from farmhand.core.request_body import as_object
from farmhand.core.schemas import MAX_ANSWER
from farmhand.core.task import BUNDLE_REF, TASK_OUTPUTS, TRANSCRIPT, Result, Task
from farmhand.core.trace_context import TraceContext, context_of
from farmhand.meter.grants import Grant, Grants
from farmhand.meter.loose_json import REFUSED, decode_as

#: How the CLI's runtime ends without a thread or memory, often without a word (its issue 36979; seen with Bun 1.4.4).
_STARVED = (signal.SIGABRT, signal.SIGILL, signal.SIGTRAP)
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "SHELL": "/bin/bash", **claude.SWITCHES}
#: Maximum text of one attempt. Each piece also counts for its memory overhead.
_MAX_TEXT = 64 * 1024 * 1024
_PIECE = 256
_FILE_PIECE = 256 * 1024
#: Lines that are not part of a transcript: the sandbox's own, and pieces of messages that come as a whole later.
_NO_TRANSCRIPT = (b'{"type": "farmhand.', b'{"type":"stream_event"')
#: Longest structured answer to decode. The checks have their own limit (see `farmhand.core.schemas`).
_MAX_STRUCTURED = 2 * MAX_ANSWER


def arguments(task: Task, config: Config, model: str) -> list[str]:
    """Return the CLI's argument vector for `task`."""
    argv = claude.arguments(
        config.claude_path, model=model, system=task.system, tools=task.tools, own_system=task.repo is not None
    )
    if task.tools:
        # There is no user to ask for permission; the sandbox confines the task.
        argv += ["--permission-mode", "bypassPermissions"]
    if task.schema is not None:
        argv += ["--json-schema", msgspec.json.encode(as_object(task.schema)).decode()]
    return argv


def environment(
    task: Task, token: str, timeout_s: float, *, plan: bool = False, trace: TraceContext | None = None
) -> dict[str, str]:
    """Return the CLI's whole environment except HOME and ANTHROPIC_BASE_URL, which the sandbox adds.

    With `plan` the CLI takes the task token for a login's, and so behaves and asks as it does with one. `trace` is what
    the CLI, and what it starts, belongs to.
    """
    return (
        _ENVIRONMENT
        | (trace.environment() if trace is not None else {})
        | {
            "CLAUDE_CODE_OAUTH_TOKEN" if plan else "ANTHROPIC_API_KEY": token,
            "API_TIMEOUT_MS": str(int(timeout_s * 1000)),
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(task.max_tokens),
        }
    )


class CliEngine:
    """The engine that runs tasks through the claude CLI in systemd's sandboxes."""

    makes_requests = True

    def __init__(self, config: Config, grants: Grants) -> None:
        self._config = config
        self._grants = grants
        self.files = TaskFiles(config.state_dir)
        spares = config.sandbox_spares
        self.sandboxes = SandboxPool(Path(config.sandbox_dir or config.runtime_dir), config.slots_cli + spares, spares)

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Result:
        """Run one CLI process; see `Engine.run`. The task token is revoked when this returns."""
        output = CliOutput(on_text if task.schema is None else lambda _text: None)
        token = self._grants.issue(grant)
        try:
            data = claude.user_message(task.prompt, task.files)
            # Where no spans are made here, the caller's own goes on.
            trace = grant.trace.context if grant.trace is not None else context_of(task.traceparent, task.tracestate)
            order: dict[str, Any] = {
                "argv": arguments(task, self._config, grant.model),
                "env": environment(task, token, timeout_s, plan=self._config.credential == "plan", trace=trace),
                "stdin_bytes": len(data),
                "meter_socket": f"{self._config.runtime_dir}/meter.sock",
            }
            bundle: Path | None = None
            if task.repo is not None:
                bundle = self.files.bundle(task.id)
                output.outputs = self.files.begin(task.id)
                order["repo"] = msgspec.to_builtins(task.repo) | {
                    "bundle_bytes": _size(bundle),
                    "ref": BUNDLE_REF,
                    "limits": TASK_OUTPUTS,
                }
                order["limit_s"] = timeout_s
            await self._converse(task, msgspec.json.encode(order) + b"\n" + data, bundle, output)
        finally:
            await self._grants.revoke(token)
        return await _judge(task, grant, output)

    async def _converse(self, task: Task, order: bytes, bundle: Path | None, output: CliOutput) -> None:
        reader, writer = await self.sandboxes.take(task.network)
        unit: str | None = None
        try:
            writer.write(order)
            if bundle is not None:
                await _send_file(writer, bundle)
            if (unit := unit_of(first := await reader.readline())) is None:
                output.take(first)
            # The sandbox's exit line is the last one. The connection ends only after systemd has removed the unit.
            while output.ended is None and (line := await reader.readline()):
                output.take(line)
        except ValueError:
            raise _too_much() from None
        except OSError as error:
            raise EngineError("agent_error", f"the task's sandbox broke off: {error}", retryable=True) from None
        finally:
            self.sandboxes.see_out((reader, writer), unit or "")


def _size(bundle: Path) -> int:
    try:
        return bundle.stat().st_size
    except OSError:
        raise EngineError("no_bundle", "the repository's bundle is not here", hint="upload it first") from None


async def _send_file(writer: asyncio.StreamWriter, path: Path) -> None:
    with path.open("rb") as file:
        while piece := file.read(_FILE_PIECE):
            writer.write(piece)
            await writer.drain()


async def _judge(task: Task, grant: Grant, output: CliOutput) -> Result:
    """Return the result, or raise the error that explains why there is none.

    An answer needs at least one turn, no `is_error`, and a process that exited with 0; `subtype` means nothing. The API
    must have answered a request of the task: a task with tools can write a result line itself. Raise TimeoutError if
    the sandbox has ended the task at its time limit.
    """
    ended, said, streamed = output.ended, output.said, "".join(output.text)
    if ended is None:
        hint = "see the journal of jada-task@"
        raise EngineError("agent_error", "the task's sandbox ended without a word", hint=hint, retryable=True)
    if ended.timed_out:
        raise TimeoutError
    if ended.stage:
        raise EngineError(
            "repository_failed", f"the repository cannot be used: {' '.join(redact(ended.stderr).split())}"
        )
    if ended.oom:
        hint = "raise jada_agent_task_memory_max"
        raise EngineError("memory_limit", "the task met its memory limit and was ended", hint=hint)
    if grant.problem is not None:
        raise grant.problem
    if grant.cut_short:
        if task.schema is not None:
            where = CUT_OFF["max_tokens"]
            raise EngineError("no_answer", f"the answer was cut off at {where}", hint="raise --max-tokens")
        # The CLI drops the text so far.
        return Result(id=task.id, state="succeeded", text=streamed, stop_reason="max_tokens")
    if ended.rc != 0 or said is None or said.is_error or not said.num_turns:
        words = (said.result if said is not None else "") or ended.stderr or "no output"
        how = f"signal {ended.signal}" if ended.signal else f"exit status {ended.rc}"
        message = " ".join(redact(words[:10_000]).split())[:300]
        starved = ended.signal in _STARVED or ended.rc == 127 or "EAGAIN" in message
        raise EngineError(
            "cli_error",
            f"the claude CLI failed ({how}): {message}",
            hint="it ends like that where it gets no thread, process or memory: other tasks may have taken them"
            if starved
            else "",
            # Nothing has been paid for: the shortage may pass.
            retryable=starved and not grant.charges,
        )
    if not grant.charges:
        raise EngineError(
            "no_request",
            "the claude CLI reported an answer, and the API has answered no request of the task",
            hint="a task with tools may have written it itself: look at its prompt and what it read",
        )
    result = Result(id=task.id, state="succeeded", stop_reason=output.stop_reason)
    if task.schema is None:
        # The CLI's own result is only its last block, and lacks the text of `content_block_start` (2.1.330).
        last = said.result or ""
        result.text = streamed if streamed.endswith(last) else last
    else:
        result.structured = await check_answer(task.schema, said.structured())
    return result


# --- what a sandbox sends -----------------------------------------------------------------------------------------


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: _Delta | None = None
    content_block: _Delta | None = None


class _StreamEvent(msgspec.Struct, tag="stream_event"):
    event: _Event


class CliResult(msgspec.Struct, tag="result"):
    """The fields of the CLI's result line that are used."""

    result: str | None = None
    is_error: bool = False
    num_turns: int = 0
    structured_output: msgspec.Raw = msgspec.Raw()

    def structured(self) -> Any:
        """Return the structured answer. Raise EngineError if there is none; that is retryable."""
        raw = bytes(self.structured_output)
        if len(raw) > _MAX_STRUCTURED:
            # This output has been paid for already: do not retry.
            raise EngineError("no_answer", f"the structured answer has {len(raw)} bytes, more than any answer has")
        try:
            return decode_as(raw, object)
        except REFUSED:
            raise EngineError("no_answer", "the model gave no structured answer", retryable=True) from None


class SandboxEnd(msgspec.Struct, tag="farmhand.exit"):
    """The sandbox's exit line (`agent/sandbox.py`)."""

    rc: int = 1
    signal: int = 0
    oom: bool = False
    stderr: str = ""
    stage: str = ""
    timed_out: bool = False


class SandboxFile(msgspec.Struct, tag="farmhand.file"):
    """A piece of a file that a repository task leaves, in base64."""

    name: str
    data: bytes


_LINE: Any = _StreamEvent | CliResult | SandboxEnd | SandboxFile


def _too_much() -> EngineError:
    return EngineError("output_limit", "the task wrote more output than an answer can have", hint="ask for less")


class CliOutput:
    """A parser of the CLI's stream-json lines and the sandbox's exit line. Other lines are ignored."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self.said: CliResult | None = None
        self.ended: SandboxEnd | None = None
        self.stop_reason = ""
        self.text: list[str] = []
        #: Where a repository task's files go.
        self.outputs: TaskOutputs | None = None
        self._on_text = on_text
        self._weight = 0

    def take(self, line: bytes) -> None:
        """Process the next line. Raise EngineError if there is more text than an answer can have."""
        if self.outputs is not None and not line.startswith(_NO_TRANSCRIPT):
            self._keep(TRANSCRIPT, line)
        try:
            found = decode_as(line, _LINE)
        except REFUSED:
            return
        match found:
            case SandboxFile() if self.outputs is not None:
                self._keep(found.name, found.data)
            case CliResult():
                self.said = found
            case SandboxEnd():
                self.ended = found
            case _StreamEvent():
                self._stream(found.event)

    def _keep(self, name: str, data: bytes) -> None:
        """Keep a piece of a file. Raise EngineError without a retry: what was done has been paid for."""
        try:
            assert self.outputs is not None  # noqa: S101  (asked by `take`)
            self.outputs.add(name, data)
        except OSError as error:
            message = f"the agent cannot keep what the task left: {error.strerror}"
            raise EngineError("no_space", message, hint="make room in state_dir, and run it again") from None

    def _stream(self, event: _Event) -> None:
        delta = event.delta or event.content_block or _Delta()
        match event.type:
            case "message_start" if self.text:
                # The next message, after a tool's result.
                self._tell("\n\n")
                self.text.clear()
            case "content_block_delta" | "content_block_start" if delta.type in ("text_delta", "text") and delta.text:
                self.text.append(delta.text)
                self._tell(delta.text)
            case "message_delta":
                self.stop_reason = delta.stop_reason or self.stop_reason

    def _tell(self, text: str) -> None:
        self._weight += len(text) + _PIECE
        if self._weight > _MAX_TEXT:
            raise _too_much()
        self._on_text(text)
