"""How the claude CLI is called: what FACTS measured as needed, and nothing of this process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farmhand.agent.config import Config
from farmhand.agent.engines import EngineError
from farmhand.agent.engines.cli import CliEngine, arguments, environment
from farmhand.core import claude
from farmhand.core.request_body import request_body
from farmhand.core.task import Result, Task, Usage
from farmhand.core.trace_context import TraceContext
from farmhand.meter.grants import Charge, Grant, Grants, Key

TASK = Task(id="one", prompt="a secret prompt", system="be brief", tools=("Bash", "Read"), max_tokens=77)


@pytest.mark.parametrize(
    "name",
    [
        "DISABLE_AUTOUPDATER",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "CLAUDE_CODE_DISABLE_ATTACHMENTS",
        "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK",
        "CLAUDE_CODE_DISABLE_THINKING",
    ],
)
def test_what_would_cost_or_attach_something_is_off(name: str) -> None:
    assert environment(TASK, "jt-token", 60)[name] == "1"


def test_the_environment_is_the_call_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "of this process")
    monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "of this process")
    for name in ("TRACEPARENT", "TRACESTATE", "OTEL_EXPORTER_OTLP_HEADERS", "CLAUDE_CODE_ENABLE_TELEMETRY"):
        monkeypatch.setenv(name, "of this process")
    env = environment(TASK, "jt-token", 60)
    assert "of this process" not in env.values()
    traced = environment(TASK, "jt-token", 60, trace=TraceContext("00-a-b-01"))
    assert traced == env | {"TRACEPARENT": "00-a-b-01"}
    assert env["ANTHROPIC_API_KEY"] == "jt-token"
    assert env["CLAUDE_CODE_MAX_RETRIES"] == "0"
    assert env["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "77"
    assert env["API_TIMEOUT_MS"] == "60000"


def test_the_invocation_is_lean_and_holds_no_prompt() -> None:
    argv = arguments(TASK, Config(claude_path=str(Path("/usr/bin/claude"))), "claude-haiku-5-5")
    assert argv[:2] == ["/usr/bin/claude", "-p"]
    for flag in ("--no-session-persistence", "--strict-mcp-config", "--disable-slash-commands", "--verbose"):
        assert flag in argv
    for flag, value in {
        "--setting-sources": "",
        "--tools": "Bash,Read",
        "--model": "claude-haiku-5-5",
        "--system-prompt": "be brief",
        "--output-format": "stream-json",
    }.items():
        assert argv[argv.index(flag) + 1] == value
    assert not any("secret prompt" in word for word in argv)
    assert b"secret prompt" in claude.user_message(TASK.prompt)


GOOD = {"type": "result", "subtype": "success", "result": "an answer", "is_error": False, "num_turns": 1}
WELL = {"type": "farmhand.exit", "rc": 0, "signal": 0, "oom": False, "stderr": ""}


async def judged(directory: Path, *lines: dict[str, Any] | bytes, answered: bool = True) -> Result:
    """What the engine makes of a sandbox that sends `lines`; `answered`: a request of it was, at the meter."""

    async def sandbox(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.writelines((line if isinstance(line, bytes) else msgspec.json.encode(line)) + b"\n" for line in lines)
        writer.close()

    async with await asyncio.start_unix_server(sandbox, directory / "task.sock"):
        engine = CliEngine(Config(runtime_dir=str(directory)), Grants())
        grant = Grant(task_id="one", key=Key("sk-ant-test-judge-00000000"), model="claude-haiku-5-5")
        grant.charges += [Charge(Usage(requests=1))] * answered
        return await engine.run(TASK, grant, lambda _text: None, 5)


async def test_a_good_end_is_an_answer(tmp_path: Path) -> None:
    assert (await judged(tmp_path, GOOD, WELL)).text == "an answer"


@pytest.mark.parametrize(
    ("lines", "code", "says"),
    [
        ([GOOD | {"is_error": True}, WELL], "cli_error", "an answer"),
        ([GOOD | {"num_turns": 0}, WELL], "cli_error", "an answer"),
        ([GOOD, WELL | {"rc": 143, "signal": 15}], "cli_error", "signal 15"),
        ([WELL | {"stderr": "no credit"}], "cli_error", "no credit"),
        ([GOOD, WELL | {"oom": True}], "memory_limit", "memory limit"),
        ([GOOD], "agent_error", "without a word"),
    ],
)
async def test_failure_is_judged_by_status_is_error_and_turns_and_never_by_the_subtype(
    tmp_path: Path, lines: list[dict[str, Any]], code: str, says: str
) -> None:
    with pytest.raises(EngineError) as error:
        await judged(tmp_path, *lines)
    assert error.value.code == code
    assert says in error.value.message


@pytest.mark.parametrize("end", [{"rc": 134, "signal": 6}, {"rc": 127, "stderr": "[Errno 11] Resource …"}])
async def test_a_cli_that_got_no_thread_says_why_and_is_tried_again_if_nothing_was_paid(
    tmp_path: Path, end: dict[str, Any]
) -> None:
    for answered in (False, True):
        (tmp_path / str(answered)).mkdir()
        with pytest.raises(EngineError) as error:
            await judged(tmp_path / str(answered), WELL | end, answered=answered)
        assert (error.value.code, error.value.retryable) == ("cli_error", not answered)
        assert "no thread, process or memory" in error.value.hint


async def test_a_time_limit_that_the_sandbox_kept_is_one(tmp_path: Path) -> None:
    for end in ({"signal": 9}, {"stage": "collect"}):
        (tmp_path / str(end)).mkdir()
        with pytest.raises(TimeoutError):
            await judged(tmp_path / str(end), GOOD, WELL | end | {"timed_out": True})


async def test_a_result_without_any_request_at_the_meter_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as error:
        await judged(tmp_path, GOOD, WELL, answered=False)
    assert (error.value.code, error.value.retryable) == ("no_request", False)
    assert error.value.hint


@pytest.mark.parametrize(
    "line",
    [
        rb'{"type":"result","result":"half \ud83d","is_error":false,"num_turns":1}',
        b'{"type":"result","result":"half \xff","is_error":false,"num_turns":1}',
        rb'{"type":"result","result":"half \udc04","is_error":false,"num_turns":1,"other":"\ud83d"}',
    ],
)
async def test_half_a_character_costs_no_answer(tmp_path: Path, line: bytes) -> None:
    assert (await judged(tmp_path, line, WELL)).text == "half \ufffd"


@pytest.mark.parametrize(
    "dialect", ["https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft-07"]
)
@pytest.mark.parametrize("kind", ["object", "array"])
def test_no_dialect_s_name_is_sent_with_a_schema(dialect: str, kind: str) -> None:
    schema = {"$schema": dialect, "type": kind, "properties": {"$schema": {"type": "string"}}}
    task = Task(id="one", prompt="p", schema=schema, engine="cli")
    argv = arguments(task, Config(claude_path="/usr/bin/claude"), "claude-haiku-5-5")
    [tool] = request_body(task, "claude-haiku-5-5")["tools"]
    for given in (json.loads(argv[argv.index("--json-schema") + 1]), tool["input_schema"]):
        inner = given if kind == "object" else given["properties"]["answer"]
        assert "$schema" not in {*given, *inner}
        assert inner["properties"] == {"$schema": {"type": "string"}}
