"""The trace of a caller goes through the workstation to the agent, and never where no spans are made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farmhand.telemetry import names
from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import Workstation, entry
from tests.integration.dispatch.sshd import Sshd
from tests.integration.dispatch.test_fallback import down, queue
from tests.integration.dispatch.test_farmhand_task import ansible
from tests.support.agent import Agent
from tests.support.collector import Collector
from tests.support.messages_api import DEFAULT_KEY, MessagesApi

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {"TRACEPARENT": f"00-{TRACE}-{SPAN}-01", "TRACESTATE": "a=1"}


async def test_a_batch_is_one_trace(tmp_path: Path, api: MessagesApi, workstation: Workstation) -> None:
    farm = Farm(tmp_path, api, workstation)
    farm.input = tmp_path / "secret-canary.jsonl"
    async with Collector() as collector:
        workstation.environment |= CALLER | {"FARMHAND_OTEL_ENDPOINT": collector.url}
        try:
            await farm.start(otel_endpoint=collector.url)
            farm.write(
                ["secret-canary one", {"id": "secret-canary", "prompt": "two", "labels": {"x": "secret-canary"}}]
            )
            done = await farm.batch()
            assert done.status == 0, done.err
            spans = [*await collector.until(5)]
            # What is done is done, in whatever trace.
            workstation.environment["TRACEPARENT"] = f"00-{TRACE}-{'1' * 16}-01"
            again = await farm.batch()
            assert (again.status, len(api.posts)) == (0, 2)
        finally:
            await farm.stop()
        [batch] = [span for span in spans if span.name == "farmhand.batch"]
        tasks = [span for span in spans if span.name == "farmhand.task"]
        requests = [span for span in spans if span.name.startswith("chat ")]
        assert {span.trace for span in spans} == {TRACE}
        assert (batch.parent, batch.resource["service.name"]) == (SPAN, "farmhand")
        assert [span.parent for span in tasks] == [batch.id, batch.id]
        assert {span.parent for span in requests} == {span.id for span in tasks}
        assert (batch.attributes[names.TASKS], batch.attributes[names.FAILED], batch.failed) == (2, 0, False)
        assert not {names.INPUT, names.OUTPUT, names.CACHE_READ, names.CACHE_CREATION} & batch.attributes.keys()
        assert batch.attributes[names.COST] == pytest.approx(sum(span.attributes[names.COST] for span in tasks))
        assert {span.attributes[names.IN_BATCH] for span in spans} == {batch.attributes[names.IN_BATCH]}
        for secret in (b"secret", b"canary", DEFAULT_KEY.encode()):
            assert secret not in collector.bytes


async def test_a_single_task_takes_the_caller_s_trace_along_only_if_spans_are_wanted(
    farm: Sshd, workstation: Workstation, api: MessagesApi, tmp_path: Path
) -> None:
    workstation.environment |= CALLER
    poison = tmp_path / "poison" / "opentelemetry"
    poison.mkdir(parents=True)
    (poison / "__init__.py").write_text("raise SystemExit('imported')")
    workstation.environment["PYTHONPATH"] = str(poison.parent)
    for number, (endpoint, sent) in enumerate((("", False), ("none", False), ("http://127.0.0.1:9", True))):
        workstation.environment["FARMHAND_OTEL_ENDPOINT"] = endpoint
        done = await workstation.run("claude-cheap", "--no-stdin", "--id", f"t{number}", "hello")
        assert done.status == 0, done.err
        shown = await workstation.run("farmhand", "show", f"t{number}", "--json")
        assert (TRACE in shown.out.decode()) == sent, shown.out


async def test_the_trace_is_kept_with_a_queued_task_and_goes_with_one_of_a_playbook(
    farm: Sshd, workstation: Workstation, local_farm: Path, agent: Agent
) -> None:
    workstation.environment |= CALLER | {"FARMHAND_OTEL_ENDPOINT": "http://127.0.0.1:9"}
    workstation.write_hosts(farm1=down(farm))
    await queue(workstation, "--id", "waited", "hello")
    del workstation.environment["TRACEPARENT"]
    workstation.write_hosts(farm1=entry(farm))
    done = await workstation.run("farmhand", "flush", "--wait")
    assert done.status == 0, done.err
    workstation.environment |= CALLER
    done = await ansible(workstation, local_farm, agent, "prompt=hello id=played")
    assert done.status == 0, done.err
    for name in ("waited", "played"):
        shown = await workstation.run("farmhand", "show", name, "--json")
        assert json.loads(shown.out)["task"]["spec"]["traceparent"] == CALLER["TRACEPARENT"], shown.out
    # It is another call that runs it again.
    del workstation.environment["TRACEPARENT"]
    again = await workstation.run("farmhand", "again", "played", "--id", "again")
    assert again.status == 0, again.err
    shown = await workstation.run("farmhand", "show", "again", "--json")
    assert TRACE not in shown.out.decode()


async def test_an_address_that_is_none_is_refused(workstation: Workstation) -> None:
    workstation.environment["FARMHAND_OTEL_ENDPOINT"] = "localhost:4318"
    done = await workstation.run("farmhand", "status")
    assert (done.status, "FARMHAND_OTEL_ENDPOINT is not an address such as http" in done.err) == (3, True), done.err
