"""The cli engine with the real claude CLI. `Sandboxes` stands for systemd; its walls are proven in tests/e2e."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import KEY, Agent, bodies, follow_until
from tests.support.answers import CASES
from tests.support.claude import claude_binary
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi, Rule, Step
from tests.support.messages_api.rules import ToolUse
from tests.support.pictures import cow, pdf
from tests.support.sandboxes import Sandboxes


def opened(directory: Path) -> Path:
    """`directory`, which the sandboxes' user may enter."""
    for part in (directory, *directory.parents[:3]):
        if part != Path("/tmp") and part.is_relative_to("/tmp"):
            part.chmod(0o755)
    return directory


@pytest.fixture
def sandboxes(tmp_path: Path) -> Iterator[Sandboxes]:
    (opened(tmp_path) / "run").mkdir()
    with Sandboxes(tmp_path / "run" / "task.sock") as running:
        yield running


@pytest.fixture
async def agent(tmp_path: Path, api: MessagesApi, sandboxes: Sandboxes) -> AsyncIterator[Agent]:
    # Without spare sandboxes: what is started is a task's.
    daemon = ForkedAgent(tmp_path, api.url, idle_s=6.0, claude_path=str(claude_binary()), sandbox_spares=0)
    await daemon.start()
    yield daemon
    await daemon.stop()


def user_text(body: dict[str, Any]) -> str:
    """The text of the user's message in a request of the CLI."""
    content = next(message for message in body["messages"] if message["role"] == "user")["content"]
    if isinstance(content, str):
        return content
    [text] = [block["text"] for block in content if not block["text"].startswith("<system-reminder>")]
    return str(text)


def bash(command: str) -> Step:
    """The model asks for one command."""
    return Step(tool_use=ToolUse(name="Bash", input={"command": command, "description": "a command"}))


@pytest.mark.parametrize("model", ["haiku", "opus", "claude-haiku-4-5-20251001"])
async def test_every_beta_that_the_cli_asks_for_passes(agent: Agent, api: MessagesApi, model: str) -> None:
    for id_, task in (("text", {}), ("tools", {"tools": ["Bash", "Read"]}), ("schema", {"schema": {"type": "object"}})):
        result = await agent.run(id=id_, prompt="hello", engine="cli", model=model, **task)
        assert result["state"] == "succeeded", result
    assert all("claude-code-20250219" in str(post.headers) for post in api.posts)
    assert "asks for the beta" not in agent.log.read_text()


async def test_a_picture_and_a_pdf_pass(agent: Agent, api: MessagesApi) -> None:
    files = [
        {"media_type": "image/png", "data": base64.b64encode(cow()).decode()},
        {"media_type": "application/pdf", "data": base64.b64encode(pdf(1)).decode()},
    ]
    result = await agent.run(id="one", prompt="What is this?", engine="cli", files=files)
    assert result["state"] == "succeeded", result
    [body] = bodies(api)
    [user] = [message for message in body["messages"] if message["role"] == "user"]
    kinds = [block["type"] for block in user["content"] if not block.get("text", "").startswith("<system-reminder>")]
    assert kinds == ["image", "document", "text"]
    [source] = [block["source"] for block in user["content"] if block["type"] == "image"]
    assert source["data"] == files[0]["data"]


async def test_a_text_task_runs_lean(agent: Agent, api: MessagesApi) -> None:
    result = await agent.run(id="one", prompt="Name a colour.", engine="cli")
    assert result["state"] == "succeeded", result
    assert result["engine"] == "cli"
    assert "Name a colour." in result["text"]
    [post] = api.posts
    assert post.size < 4000
    assert json.loads(post.body)["model"] == "claude-haiku-5-5"
    assert "tools" not in json.loads(post.body) or json.loads(post.body)["tools"] == []
    assert result["usage"]["requests"] == 1
    assert result["cost_usd"] > 0


async def test_the_cli_never_has_the_key(agent: Agent, api: MessagesApi) -> None:
    api.rule(
        Rule(contains="dump", steps=[bash("env; cat /proc/$PPID/environ | tr '\\0' '\\n'"), Step(text="{tool_result}")])
    )
    result = await agent.run(id="one", prompt="dump", tools=["Bash"])
    assert result["state"] == "succeeded", result
    assert "ANTHROPIC_API_KEY=jt-" in result["text"]
    assert DEFAULT_KEY not in result["text"]
    assert {post.headers["x-api-key"] for post in api.posts} == {DEFAULT_KEY}


async def test_the_task_token_dies_with_the_task(agent: Agent, api: MessagesApi) -> None:
    api.rule(Rule(contains="token", steps=[bash("echo $ANTHROPIC_API_KEY"), Step(text="{tool_result}")]))
    result = await agent.run(id="one", prompt="token", tools=["Bash"])
    token = next(word for word in result["text"].split() if word.startswith("jt-"))
    reader, writer = await asyncio.open_unix_connection(agent.directory / "run" / "meter.sock")
    body = b'{"model":"claude-haiku-5-5","max_tokens":9,"messages":[{"role":"user","content":"x"}]}'
    head = f"POST /v1/messages HTTP/1.1\r\nHost: meter\r\nx-api-key: {token}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    assert (await reader.readline()).split()[1] == b"401"
    writer.close()


async def test_tools_are_used(agent: Agent, api: MessagesApi) -> None:
    steps = [bash("echo $((6*7)) > answer; pwd"), bash("cat answer"), Step(text="It says {tool_result}.")]
    api.rule(Rule(contains="compute", steps=steps))
    result = await agent.run(id="one", prompt="compute", tools=["Bash", "Read"])
    assert result["text"] == "It says 42."
    assert result["usage"]["requests"] == 3


async def test_what_a_task_was_charged_outlives_the_agent_that_dies_under_it(agent: Agent, api: MessagesApi) -> None:
    api.rule(Rule(contains="compute", steps=[bash("echo 42"), bash("echo 43"), Step(text="never")]))
    api.fault(Fault(kind="slow", delay_s=60, skip=2))
    await agent.submit({"id": "one", "prompt": "compute", "tools": ["Bash"]})
    charges: list[dict[str, Any]] = []
    for _ in range(800):
        charges = await agent.get("/v1/charges")
        if len(charges) == 2 and len(api.posts) == 3:
            break
        await asyncio.sleep(0.05)
    await agent.stop(signal.SIGKILL)
    await agent.start()
    task = (await agent.get("/v1/tasks/one"))["task"]
    assert (task["state"], task["usage"]["requests"], task["uncertain"]) == ("awaiting_key", 2, 1)
    assert task["cost_usd"] == pytest.approx(sum(charge["cost_usd"] for charge in charges))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
    ],
    ids=["object", "array"],
)
async def test_a_schema_gets_a_structured_answer(agent: Agent, schema: dict[str, Any]) -> None:
    result = await agent.run(id="one", prompt="answer", engine="cli", schema=schema)
    assert result["state"] == "succeeded", result
    assert isinstance(result["structured"], dict if schema["type"] == "object" else list)


@pytest.mark.parametrize(
    "prompt",
    [
        "a; id",
        "$(id)",
        "`id`",
        "one\ntwo\r\nthree",
        "'\"\\",
        "@/etc/passwd",
        "look at @/etc/hostname please",
        "/help",
        "/compact now",
        "/etc/passwd is a file",
        "--help",
        "!id",
        "#memory",
        "emoji 🐄👩‍🌾",
        "x" * 1_000_000,
    ],
    ids=lambda prompt: prompt[:12],
)
async def test_a_prompt_reaches_the_api_byte_for_byte(agent: Agent, api: MessagesApi, prompt: str) -> None:
    result = await agent.run(id="one", prompt=prompt, engine="cli")
    assert result["state"] == "succeeded", result
    [body] = bodies(api)
    assert user_text(body) == prompt
    assert "root:" not in api.posts[0].body


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(kind="status", status=401), "authentication_error"),
        (Fault(kind="status", status=402), "billing_error"),
        (Fault(kind="credit"), "billing_error"),
        (Fault(kind="usage_limit"), "spend_limit"),
        (Fault(kind="spend_limit"), "spend_limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_refused_key_parks_the_task_after_one_request_with_the_api_s_own_reason(
    agent: Agent, api: MessagesApi, fault: Fault, code: str
) -> None:
    api.fault(fault)
    await agent.submit({"id": "one", "prompt": "hello", "engine": "cli"})
    event = await follow_until(agent, "one", "awaiting_key")
    assert (event["reason"], (await agent.get("/v1/tasks/one"))["task"]["attempts"]) == (code, 0)
    assert len(api.posts) == 1
    await agent.call("PUT", "/v1/key", headers=KEY)
    assert (await agent.result("one"))["state"] == "succeeded"


async def test_a_final_error_ends_the_task_with_the_api_s_own_reason(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=403))
    result = await agent.run(id="one", prompt="hello", engine="cli")
    assert (result["state"], result["error"]["code"], result["attempts"]) == ("failed", "permission_error", 1)
    assert len(api.posts) == 1


async def test_retries_belong_to_the_agent(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=529, count=2))
    result = await agent.run(id="one", prompt="hello", engine="cli")
    assert (result["state"], result["attempts"]) == ("succeeded", 1)
    assert len(api.posts) == 3


@pytest.mark.parametrize("kind", ["cut", "stream_error", "stalled"])
async def test_an_answer_that_breaks_off_is_paid_once_and_started_over(
    agent: Agent, api: MessagesApi, kind: str
) -> None:
    api.fault(Fault(kind=kind, after_events=4))  # type: ignore[arg-type]  # the parameters above are its kinds
    result = await agent.run(id="one", prompt="hello", engine="cli")
    assert (result["state"], result["attempts"]) == ("succeeded", 2), result
    assert len(api.posts) == 2


async def test_an_answer_cut_at_max_tokens_costs_one_request(agent: Agent, api: MessagesApi) -> None:
    result = await agent.run(id="one", prompt="words " * 200, engine="cli", max_tokens=20)
    assert (result["state"], result["stop_reason"]) == ("succeeded", "max_tokens"), result
    assert result["text"]
    assert len(api.posts) == 1


async def test_a_retired_model_gives_the_api_s_error_and_a_suggestion(agent: Agent) -> None:
    result = await agent.run(id="one", prompt="hello", engine="cli", model="claude-3-5-haiku-20241022")
    assert result["error"]["code"] == "unknown_model"
    assert "haiku" in result["error"]["hint"]


async def ended(sandboxes: Sandboxes) -> bool:
    """Whether every sandbox ends by itself soon; it does so once its CLI is gone."""
    for _ in range(800):
        if all(process.poll() is not None for process in sandboxes.started):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_cancel_ends_the_sandbox(agent: Agent, api: MessagesApi, sandboxes: Sandboxes) -> None:
    api.fault(Fault(kind="slow", delay_s=60))
    await agent.submit({"id": "one", "prompt": "hello", "engine": "cli"})
    for _ in range(800):
        if api.posts:
            break
        await asyncio.sleep(0.05)
    assert not all(process.poll() is not None for process in sandboxes.started)
    await agent.call("DELETE", "/v1/tasks/one")
    assert await ended(sandboxes)
    # Sooner than the API's silence would end it.
    for _ in range(800):
        if api.posts[0].aborted:
            break
        await asyncio.sleep(0.05)
    assert api.posts[0].aborted, "the request goes on, and is paid for, though nobody waits for it"


async def test_the_time_limit_ends_the_sandbox(agent: Agent, api: MessagesApi, sandboxes: Sandboxes) -> None:
    api.fault(Fault(kind="slow", delay_s=60))
    result = await agent.run(id="one", prompt="hello", engine="cli", timeout_s=2)
    assert result["error"]["code"] == "timeout"
    assert await ended(sandboxes)


HOLD = "c=$PPID; setsid bash -c 'exec 1>/proc/'$c'/fd/1; exec sleep 30' < /dev/null 2> /dev/null & sleep 0.3; echo held"


async def test_what_a_task_leaves_behind_does_not_hold_it_up(agent: Agent, api: MessagesApi) -> None:
    api.rule(Rule(contains="hold on", steps=[bash(HOLD), Step(text="{tool_result}")]))
    result = await agent.run(id="one", prompt="hold on", tools=["Bash"], timeout_s=20)
    assert (result["state"], result["text"].strip()) == ("succeeded", "held"), result


async def test_what_a_task_leaves_behind_does_not_outlive_its_cancelling(
    agent: Agent, api: MessagesApi, sandboxes: Sandboxes
) -> None:
    api.rule(Rule(contains="hold on", steps=[bash(f"{HOLD}; sleep 30")]))
    await agent.submit({"id": "one", "prompt": "hold on", "tools": ["Bash"]})
    for _ in range(800):
        if api.posts:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    await agent.call("DELETE", "/v1/tasks/one")
    assert await ended(sandboxes)


async def test_output_without_end_ends_the_task_and_not_the_agent(agent: Agent, api: MessagesApi) -> None:
    flood = "head -c 60000000 /dev/zero | tr '\\0' x > /proc/$PPID/fd/1; sleep 20"
    api.rule(Rule(contains="flood", steps=[bash(flood)]))
    result = await agent.run(id="one", prompt="flood", tools=["Bash"], timeout_s=30)
    assert (result["state"], result["error"]["code"], result["attempts"]) == ("failed", "output_limit", 1)
    assert (await agent.run(id="two", prompt="hello"))["state"] == "succeeded"


async def test_no_sandbox_is_one_clear_error(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url)
    await agent.start()
    result = await agent.run(id="one", prompt="hello", engine="cli")
    await agent.stop()
    assert result["error"]["code"] == "agent_error"
    assert "jada-task.socket" in result["error"]["hint"]


async def test_a_cli_that_is_not_there_is_one_clear_error(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(opened(tmp_path), api.url, claude_path="/nonexistent/claude")
    with Sandboxes(tmp_path / "run" / "task.sock"):
        await agent.start()
        result = await agent.run(id="one", prompt="hello", engine="cli")
        await agent.stop()
    assert result["state"] == "failed"
    assert "/nonexistent/claude" in result["error"]["message"]


async def test_a_sandbox_that_was_started_ahead_serves_one_task_and_ends(
    tmp_path: Path, api: MessagesApi, sandboxes: Sandboxes
) -> None:
    agent = ForkedAgent(tmp_path, api.url, claude_path=str(claude_binary()), sandbox_spares=1)
    await agent.start()
    api.rule(Rule(contains="where", steps=[bash("echo $PPID $HOME"), Step(text="{tool_result}")]))
    homes = [(await agent.run(id=name, prompt="where", tools=["Bash"]))["text"] for name in ("one", "two")]
    assert len(set(homes)) == 2
    for _ in range(800):
        ended = [process.poll() is not None for process in sandboxes.started]
        if ended == [True, True, False]:
            break
        await asyncio.sleep(0.05)
    # The third was started when the second task took the one that waited.
    assert ended == [True, True, False]
    await agent.stop()
    assert sandboxes.started[2].wait(timeout=40) == 0


#: Whole answers that the CLI reads as well, or that the meter must not take for broken ones.
READ_BY_THE_CLI = (
    "done after the end", "no final newline", "error after the end", "cut after the end", "silence after the end",
    "gzip", "text in content_block_start", "half an emoji", "usage zeros in message_delta", "usage far too large",
)  # fmt: skip


async def test_whole_answers_of_every_kind_are_paid_once_by_the_cli_too(agent: Agent, api: MessagesApi) -> None:
    cases = {case.name: case for case in CASES if case.name in READ_BY_THE_CLI}
    assert cases.keys() == set(READ_BY_THE_CLI)
    wrong = {}
    for number, case in enumerate(cases.values()):
        api.fault(Fault(kind="verbatim", match=f"case {number}.", answer=case.answer, count=-1))
        result = await agent.run(id=f"case-{number}", prompt=f"case {number}.", engine="cli")
        asked = sum(f"case {number}." in post.body for post in api.posts)
        found = (result["state"], result["text"], asked, result["uncertain"], result["cost_usd"] is None)
        if found != ("succeeded", case.text, 1, case.uncertain, case.factor is None):
            wrong[case.name] = (*found, result["error"])
    assert not wrong
