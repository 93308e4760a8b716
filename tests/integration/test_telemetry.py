"""Spans of the real daemon: what is in them, what never is, and that no task suffers from a collector."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from farmhand.telemetry import names
from tests.support.agent import Agent
from tests.support.claude import claude_binary
from tests.support.collector import Collector, rotel
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi, Rule, Step
from tests.support.messages_api.rules import ToolUse
from tests.support.sandboxes import Sandboxes

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
CANARY = "canary-7f3a"


async def test_a_task_and_its_requests_are_spans_of_the_caller_s_trace(tmp_path: Path, api: MessagesApi) -> None:
    async with Collector() as collector:
        agent = Agent(tmp_path, api.url, otel_endpoint=collector.url)
        await agent.start()
        api.fault(Fault(kind="status", status=529, count=1))
        task = {"id": "one", "prompt": "hello", "traceparent": PARENT, "tracestate": "a=1"}
        result = await agent.run(**task, batch="people-1f2e3d4c")
        request, own = await collector.until(2)
        # The same task in another trace is the same task.
        again = await agent.run(**task | {"traceparent": "", "tracestate": ""}, batch="people-1f2e3d4c")
        assert again == result
        await agent.stop()
    assert (own.name, own.trace, own.parent, own.state) == ("farmhand.task", TRACE, SPAN, "a=1")
    assert (request.name, request.trace, request.parent) == ("chat claude-haiku-5-5", TRACE, own.id)
    usage = result["usage"]
    shared = {
        names.INPUT: usage["input_tokens"],
        names.OUTPUT: usage["output_tokens"],
        names.CACHE_READ: 0,
        names.CACHE_CREATION: 0,
        names.COST: result["cost_usd"],
        names.FINISH: ["end_turn"],
        names.MODEL: "claude-haiku-5-5",
        names.PLACE: "farm",
        names.ENGINE: "api",
        names.ATTEMPT: 1,
        # printf %s one | sha256sum | cut -c1-12
        names.TASK_ID: "7692c3ad3540",
        names.IN_BATCH: own.attributes[names.IN_BATCH],
    }
    assert own.attributes == shared
    about = {names.OPERATION: "chat", names.PROVIDER: "anthropic", names.MAX_TOKENS: 4096, names.RETRIES: 1}
    assert request.attributes == shared | about
    assert (request.kind, request.failed, own.failed, collector.refused) == (3, False, False, [])
    assert own.resource["service.name"] == "jada-agent"


async def test_an_error_is_a_code_and_each_attempt_has_its_request(tmp_path: Path, api: MessagesApi) -> None:
    async with Collector() as collector:
        agent = Agent(tmp_path, api.url, otel_endpoint=collector.url, attempts=2)
        await agent.start()
        api.fault(Fault(kind="status", status=400, message=CANARY, match="bad", count=-1))
        await agent.run(id="bad", prompt="bad", traceparent="garbage", tracestate=CANARY)
        api.fault(Fault(kind="cut", match="cut", count=1))
        result = await agent.run(id="cut", prompt="cut")
        spans = await collector.until(5)
        await agent.stop()
    assert result["attempts"] == 2
    bad = [span for span in spans if span.trace == spans[0].trace]
    assert [span.attributes[names.ERROR] for span in bad] == ["invalid_request", "invalid_request"]
    assert [span.failed for span in bad] == [True, True]
    first, second, own = (span for span in spans if span not in bad)
    assert [span.attributes[names.ATTEMPT] for span in (first, second, own)] == [1, 2, 2]
    assert (names.ERROR in first.attributes, names.COST in first.attributes) == (True, False)
    assert (own.parent, own.failed, names.COST in own.attributes) == ("", False, False)
    assert CANARY.encode() not in collector.bytes


async def test_a_collector_of_others_takes_it(tmp_path: Path, api: MessagesApi) -> None:
    with rotel(tmp_path) as collector:
        agent = Agent(tmp_path, api.url, otel_endpoint=collector.url)
        await agent.start()
        result = await agent.run(id=f"{CANARY}.txt", prompt=CANARY, system=CANARY, traceparent=PARENT)
        request, own = await collector.until(2)
        await agent.stop()
    assert [one["Trace ID"] for one in (request, own)] == [TRACE, TRACE]
    assert (own["Parent ID"], request["Parent ID"]) == (SPAN, own["ID"])
    assert int(request[names.INPUT]) == result["usage"]["input_tokens"]
    assert float(own[names.COST]) == pytest.approx(result["cost_usd"])
    assert request[names.MODEL] == "claude-haiku-5-5"
    assert CANARY not in collector.log.read_text()


@pytest.fixture
def sandboxes(tmp_path: Path) -> object:
    for part in (tmp_path, *tmp_path.parents[:3]):
        if part != Path("/tmp") and part.is_relative_to("/tmp"):
            part.chmod(0o755)
    (tmp_path / "run").mkdir()
    with Sandboxes(tmp_path / "run" / "task.sock") as running:
        yield running


async def test_the_real_cli_is_given_the_trace_and_the_api_is_not(
    tmp_path: Path, api: MessagesApi, sandboxes: Sandboxes
) -> None:
    command = {"command": "echo $TRACEPARENT $TRACESTATE", "description": "a command"}
    steps = [Step(tool_use=ToolUse(name="Bash", input=command)), Step(text="{tool_result}")]
    api.rule(Rule(contains="show", steps=steps))
    async with Collector() as collector:
        settings = {"claude_path": str(claude_binary()), "sandbox_spares": 0}
        agent = Agent(tmp_path, api.url, otel_endpoint=collector.url, **settings)
        await agent.start()
        task = {"prompt": f"show {CANARY}", "tools": ["Bash"], "labels": {"file": CANARY}}
        result = await agent.run(id="one", **task, traceparent=PARENT, tracestate="a=1")
        assert result["state"] == "succeeded", result
        *requests, own = await collector.until(3)
        await agent.stop()
        # The CLI, whose own telemetry is off, hands on what it was given.
        assert result["text"].split()[0] == own.traceparent, result["text"]
        assert all(one.parent == own.id for one in requests)
        assert "traceparent" not in json.dumps([post.headers for post in api.posts]).lower()
        for secret in (CANARY, DEFAULT_KEY, "jt-"):
            assert secret.encode() not in collector.bytes


@pytest.mark.parametrize("answer", ["down", "silent"])
async def test_no_task_suffers_from_the_collector(tmp_path: Path, api: MessagesApi, answer: str) -> None:
    async with Collector(answer) as collector:
        agent = Agent(tmp_path, api.url, otel_endpoint="http://127.0.0.1:9" if answer == "down" else collector.url)
        await agent.start()
        for number in range(5):
            assert (await agent.run(id=f"t{number}", prompt="hello"))["state"] == "succeeded"
        if answer == "silent":
            await collector.asked()
        began = time.monotonic()
        assert await agent.stop() == 0
        # Not a matter of speed: the SDK's own bound is half a minute.
        assert time.monotonic() - began < 20
    lines = [line for line in agent.log.read_text().splitlines() if "INFO" not in line and "ledger" not in line]
    assert len(lines) <= 1, lines
    if answer == "down":
        gone = "WARNING the collector at 127.0.0.1:9 does not answer: spans are lost, tasks go on (otel_endpoint)"
        assert lines == [gone]


async def test_the_environment_decides_nothing(
    tmp_path: Path, api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Collector() as collector, Collector() as other:
        hostile = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": other.url,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": other.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-canary={CANARY}",
            "OTEL_RESOURCE_ATTRIBUTES": f"x={CANARY}",
            "OTEL_SERVICE_NAME": CANARY,
            "OTEL_TRACES_SAMPLER": "always_off",
            "OTEL_BSP_MAX_QUEUE_SIZE": "many",
            "OTEL_ATTRIBUTE_COUNT_LIMIT": "0",
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-1",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "never",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "lzma",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/nowhere",
            "OTEL_PROPAGATORS": "nonsense",
            "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "nonsense",
            "http_proxy": other.url,
            "all_proxy": other.url,
        }
        for name, value in hostile.items():
            monkeypatch.setenv(name, value)
        agent = Agent(tmp_path, api.url, otel_endpoint=collector.url)
        await agent.start()
        await agent.run(id="one", prompt="hello")
        _, own = await collector.until(2)
        await agent.stop()
    assert len(own.attributes) > 8
    assert (other.requests, CANARY.encode() in collector.bytes) == ([], False)
    assert "collector" not in agent.log.read_text()


@pytest.mark.parametrize("on", [False, True])
async def test_without_a_collector_nothing_of_it_is_imported(
    tmp_path: Path, api: MessagesApi, monkeypatch: pytest.MonkeyPatch, *, on: bool
) -> None:
    poison = tmp_path / "poison" / "opentelemetry"
    poison.mkdir(parents=True)
    (poison / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.setenv("PYTHONPATH", str(poison.parent))
    agent = Agent(tmp_path, api.url, **{"otel_endpoint": "http://127.0.0.1:9"} if on else {})
    if on:
        with pytest.raises(AssertionError, match="imported"):
            await agent.start()
        return
    await agent.start()
    assert (await agent.run(id="one", prompt="hello", traceparent=PARENT))["state"] == "succeeded"
    await agent.stop()


async def test_an_economy_task_is_a_span_as_long_as_its_batch(tmp_path: Path, api: MessagesApi) -> None:
    async with Collector() as collector:
        agent = Agent(tmp_path, api.url, otel_endpoint=collector.url, economy_linger_s=0.1, economy_poll_s=0.1)
        await agent.start()
        result = await agent.run(id="one", prompt="hello", economy=True, traceparent=PARENT)
        [own] = await collector.until(1)
        await agent.stop()
    assert (own.name, own.trace, own.parent) == ("farmhand.task", TRACE, SPAN)
    assert (own.attributes[names.ENGINE], own.attributes[names.ATTEMPT]) == ("economy", 1)
    assert own.attributes[names.COST] == result["cost_usd"]
    assert own.attributes[names.OUTPUT] == result["usage"]["output_tokens"]
    assert own.attributes[names.FINISH] == ["end_turn"]
    assert own.seconds > 0
