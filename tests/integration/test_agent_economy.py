"""Economy tasks: through the provider's Message Batches, at half price, over crashes, refusals and lost answers."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farmhand.core.money import pico
from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from tests.support.agent import KEY, Agent, wait_batch
from tests.support.forked import ForkedAgent
from tests.support.messages_api import BatchFault, Fault, MessagesApi, Plan, batch_api
from tests.support.messages_api.batch import Item
from tests.support.messages_api.deliver import deliver_lines

MODEL = "claude-haiku-5-5"
CREATE = "/v1/messages/batches"


def tasks(count: int, **more: Any) -> list[dict[str, Any]]:
    """`count` economy tasks of the batch `e`."""
    return [{"id": f"e-{n}", "prompt": f"say {n}", "batch": "e", "economy": True, **more} for n in range(count)]


def calls(api: MessagesApi, method: str, path: str = CREATE) -> int:
    """How many calls of an endpoint the API got."""
    return sum(entry.method == method and entry.path == path for entry in api.log)


@pytest.fixture
async def thrifty(tmp_path: Path, api: MessagesApi) -> AsyncIterator[Agent]:
    """An agent that looks at its Message Batches often."""
    agent = ForkedAgent(tmp_path, api.url, economy_linger_s=0.1, economy_poll_s=0.1, idle_s=2.0, drain_s=2.0)
    await agent.start()
    yield agent
    await agent.stop()


async def created(api: MessagesApi, count: int = 1) -> None:
    """Poll until the provider has so many batches."""
    for _ in range(6000):
        if len(api.batches.all()) >= count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(api.batches.all())} batches, not {count}")


async def test_a_batch_goes_out_as_one_at_half_price(thrifty: Agent, api: MessagesApi) -> None:
    await thrifty.submit(*tasks(20))
    batch = await wait_batch(thrifty, "e", succeeded=20)
    assert len(api.batches.all()) == 1
    assert not api.posts
    page = await thrifty.get("/v1/results?batch=e&after=0")
    assert {one["id"]: one["text"].rpartition(": ")[2] for one in page["results"]} == {
        f"e-{n}": f"say {n}" for n in range(20)
    }
    charges = await thrifty.get("/v1/charges")
    assert all(one["economy"] and one["engine"] == "economy" and one["request_id"] for one in charges)
    used = Usage(input_tokens=charges[0]["input_tokens"], output_tokens=charges[0]["output_tokens"])
    full = price_table().cost(MODEL, used)
    assert full is not None
    assert 2 * pico(Decimal(str(charges[0]["cost_usd"]))) == full
    assert sum(Decimal(str(one["cost_usd"])) for one in charges) == Decimal(str(batch["cost_usd"]))
    told = api.batches.all()[0].usage
    assert sum(one["output_tokens"] for one in charges) == told["output_tokens"]


async def test_a_structured_answer(thrifty: Agent, api: MessagesApi) -> None:
    schema = {"type": "object", "properties": {"cows": {"type": "integer"}}, "required": ["cows"]}
    result = await thrifty.run(id="s", prompt="How many?", economy=True, schema=schema)
    assert (result["state"], result["structured"]) == ("succeeded", {"cows": 0})


async def test_mixed_outcomes(thrifty: Agent, api: MessagesApi) -> None:
    api.batch_fault(
        BatchFault(match='say 1"', status=529),
        BatchFault(match='say 2"', result="expired"),
        BatchFault(match='say 3"', status=400, message="this one cannot be"),
    )
    await thrifty.submit(*tasks(5))
    await wait_batch(thrifty, "e", succeeded=4, failed=1)
    results = {one["id"]: one for one in (await thrifty.get("/v1/results?batch=e&after=0"))["results"]}
    assert results["e-3"]["error"]["code"] == "invalid_request"
    assert "this one cannot be" in results["e-3"]["error"]["message"]
    assert {name: one["attempts"] for name, one in results.items()} == {
        "e-0": 1, "e-1": 2, "e-2": 2, "e-3": 1, "e-4": 1,
    }  # fmt: skip
    assert len(await thrifty.get("/v1/charges")) == 4


async def test_a_crash_asks_for_the_same_batch_again(thrifty: Agent, api: MessagesApi) -> None:
    api.batches.plan = Plan(after_ms=None)
    await thrifty.submit(*tasks(6))
    await created(api)
    await wait_batch(thrifty, "e", running=6)
    await thrifty.stop(signal.SIGKILL)
    await api.advance(action="finish")
    await thrifty.start()
    assert (await thrifty.get("/v1/batches/e"))["batch"]["running"] == 6
    await thrifty.call("PUT", "/v1/key", headers=KEY)
    batch = await wait_batch(thrifty, "e", succeeded=6)
    assert (len(api.batches.all()), batch["uncertain"]) == (1, 0)
    assert len(await thrifty.get("/v1/charges")) == 6


async def test_a_lost_answer_is_found_by_listing(thrifty: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="cut", method="POST", path=CREATE))
    await thrifty.submit(*tasks(4))
    await wait_batch(thrifty, "e", succeeded=4)
    assert (len(api.batches.all()), calls(api, "POST")) == (1, 1)


async def test_another_host_s_batch_of_the_same_size_is_not_taken_for_ours(thrifty: Agent, api: MessagesApi) -> None:
    params = b'{"model":"claude-haiku-5-5","max_tokens":5,"messages":[{"role":"user","content":"other"}]}'
    api.fault(Fault(kind="reset", method="POST", path=CREATE))
    await thrifty.submit(*tasks(1))
    for _ in range(12000):
        if calls(api, "POST"):
            break
        await asyncio.sleep(0.01)
    api.batches.create([Item("other-1", msgspec.Raw(params))], {"x-api-key": KEY["X-Farmhand-Key"]}, 0)
    batch = await wait_batch(thrifty, "e", succeeded=1)
    assert batch["uncertain"] == 0
    result = (await thrifty.get("/v1/tasks/e-0"))["task"]
    assert result["text"].endswith("say 0")
    assert len(api.batches.all()) == 2


@pytest.mark.parametrize("status", [429, 529, 500])
async def test_a_create_that_may_pass_is_done_again(thrifty: Agent, api: MessagesApi, status: int) -> None:
    api.fault(Fault(kind="status", status=status, method="POST", path=CREATE))
    await thrifty.submit(*tasks(2))
    await wait_batch(thrifty, "e", succeeded=2)
    assert len(api.batches.all()) == 1
    assert {one["attempts"] for one in (await thrifty.get("/v1/results?batch=e&after=0"))["results"]} == {1}


async def test_a_refused_key_parks_them_and_a_good_one_sends_them(thrifty: Agent, api: MessagesApi) -> None:
    wrong = {"X-Farmhand-Key": "sk-ant-test-wrong-000000000000"}
    await thrifty.submit(*tasks(3), key=wrong)
    await wait_batch(thrifty, "e", awaiting_key=3)
    waits = (await thrifty.get("/v1/status"))["waiting"]
    assert "key_refused" in [wait["reason"] for wait in waits]
    await thrifty.call("PUT", "/v1/key", headers=KEY)
    await wait_batch(thrifty, "e", succeeded=3)
    assert {one["attempts"] for one in (await thrifty.get("/v1/results?batch=e&after=0"))["results"]} == {1}


async def test_cancelling_reaches_the_provider_and_what_it_cost_is_counted(thrifty: Agent, api: MessagesApi) -> None:
    api.batches.plan = Plan(after_ms=None, in_flight=2)
    await thrifty.submit(*tasks(5))
    await created(api)
    await wait_batch(thrifty, "e", running=5)
    status, answer = await thrifty.call("DELETE", "/v1/batches/e")
    assert (status, answer["cancelled"]) == (200, 5)
    for _ in range(2400):
        charges = await thrifty.get("/v1/charges")
        if len(charges) == 2:
            break
        await asyncio.sleep(0.05)
    assert len(charges) == 2
    assert api.batches.all()[0].cancelled is not None
    assert (await thrifty.get("/v1/batches/e"))["batch"]["cancelled"] == 5


async def test_one_task_cancelled_leaves_the_others(thrifty: Agent, api: MessagesApi) -> None:
    api.batches.plan = Plan(after_ms=None)
    await thrifty.submit(*tasks(3))
    await wait_batch(thrifty, "e", running=3)
    await thrifty.call("DELETE", "/v1/tasks/e-1")
    await api.advance(action="finish")
    batch = await wait_batch(thrifty, "e", succeeded=2, cancelled=1)
    for _ in range(2400):
        if len(await thrifty.get("/v1/charges")) == 3:
            break
        await asyncio.sleep(0.05)
    assert len(await thrifty.get("/v1/charges")) == 3
    assert batch["unpriced"] == 0


async def test_results_that_break_off_are_asked_for_again(thrifty: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="cut", path=f"{CREATE}/*/results", after_events=2))
    await thrifty.submit(*tasks(6))
    await wait_batch(thrifty, "e", succeeded=6)
    assert len(await thrifty.get("/v1/charges")) == 6


async def test_an_early_404_is_not_the_end(thrifty: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="status", status=404, method="GET", path=f"{CREATE}/*", count=2))
    await thrifty.submit(*tasks(2))
    await wait_batch(thrifty, "e", succeeded=2)


async def test_results_that_are_gone_are_uncertain_and_fail(thrifty: Agent, api: MessagesApi) -> None:
    api.batches.plan = Plan(after_ms=None)
    await thrifty.submit(*tasks(2))
    await wait_batch(thrifty, "e", running=2)
    await api.advance(action="finish")
    await api.advance(action="archive")
    batch = await wait_batch(thrifty, "e", failed=2)
    assert batch["uncertain"] == 2
    result = (await thrifty.get("/v1/tasks/e-0"))["task"]
    assert result["error"]["code"] == "economy_lost"


async def test_a_batch_cancelled_at_the_provider_fails_its_tasks(thrifty: Agent, api: MessagesApi) -> None:
    api.batches.plan = Plan(after_ms=None)
    await thrifty.submit(*tasks(2))
    await wait_batch(thrifty, "e", running=2)
    await created(api)
    api.batches.all()[0].cancel()
    await wait_batch(thrifty, "e", failed=2)
    assert (await thrifty.get("/v1/tasks/e-0"))["task"]["error"]["code"] == "economy_cancelled"


async def test_budgets_are_kept_at_half_price(thrifty: Agent, api: MessagesApi) -> None:
    await thrifty.call("PUT", "/v1/batches/e", body={"max_usd": 0.00154, "concurrency": None})
    await thrifty.submit(*tasks(5, max_tokens=1000))
    await wait_batch(thrifty, "e", succeeded=4, failed=1)
    failed = [one for one in (await thrifty.get("/v1/results?batch=e&after=0"))["results"] if one["state"] == "failed"]
    assert failed[0]["error"]["code"] == "budget"
    assert "batch e" in failed[0]["error"]["message"]


async def test_a_drained_host_sends_nothing_new(thrifty: Agent, api: MessagesApi) -> None:
    await thrifty.submit(*tasks(2), key={})
    await thrifty.call("PUT", "/v1/drain", body={"mode": "running"})
    await thrifty.call("PUT", "/v1/key", headers=KEY)
    await asyncio.sleep(0.5)
    assert not api.batches.all()
    await thrifty.call("PUT", "/v1/drain", body={"mode": "off"})
    await wait_batch(thrifty, "e", succeeded=2)


@pytest.mark.parametrize("refused", [False, True])
async def test_a_disk_that_is_full_when_the_batch_is_answered_holds_it_up_and_no_more(
    thrifty: Agent, api: MessagesApi, refused: bool
) -> None:
    fault = Fault(kind="slow", delay_s=0.5, path=CREATE, method="POST")
    # A refusal has no delay of its own.
    api.state.latency_s = 0.5 if refused else 0.0
    api.fault(Fault(kind="status", status=529, path=CREATE, method="POST") if refused else fault)
    await thrifty.submit(*tasks(3))
    await thrifty.wait_state("e-0", "running")
    room = (thrifty.directory / "state" / "ledger.db-wal").stat().st_size
    _, most = resource.prlimit(thrifty.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(thrifty.pid, resource.RLIMIT_FSIZE, (room, most))
    for _ in range(6000):
        if "cannot be written" in thrifty.log.read_text():
            break
        await asyncio.sleep(0.02)
    assert "cannot be written" in thrifty.log.read_text()
    resource.prlimit(thrifty.pid, resource.RLIMIT_FSIZE, (most, most))
    await wait_batch(thrifty, "e", succeeded=3)
    assert len(api.batches.all()) == 1


def answered(line: bytes, **usage: Any) -> dict[str, Any]:
    """A line of results whose message has another `usage` as well."""
    told: dict[str, Any] = json.loads(line)
    told["result"]["message"]["usage"] |= usage
    return told


def written(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


#: What becomes of the line for "say N": its bytes, and what the task then has (text or not, cost's factor, uncertain).
LINES: list[tuple[str, Callable[[bytes], bytes], bool, str | None, int]] = [
    ("blank lines", lambda line: b"\r\n\n" + line.rstrip(b"\n") + b"\r\n", True, "1", 0),
    ("half an emoji", lambda line: line.replace(b"say 1", rb"say 1\ud83d"), True, "1", 0),
    ("not UTF-8", lambda line: line.replace(b"say 2", b"say 2\xff"), True, "1", 0),
    ("far too large", lambda line: written(answered(line, output_tokens=10**14)), True, None, 1),
    ("above what was asked for", lambda line: written(answered(line, output_tokens=60_000)), True, None, 1),
    ("beyond 64 bits", lambda line: written(answered(line, input_tokens=2**70)), True, None, 1),
    ("negative", lambda line: written(answered(line, output_tokens=-1)), True, None, 1),
    ("place us", lambda line: written(answered(line, inference_geo="us")), True, "1.1", 0),
    ("place eu", lambda line: written(answered(line, inference_geo="eu")), True, None, 1),
    ("no usage", lambda line: written(answered(line)).replace(b'"usage"', b'"abuse"'), True, None, 1),
    ("damaged", lambda line: line[: len(line) // 2] + b"\n", False, "0", 1),
]


async def test_odd_results_keep_their_answers_and_are_priced_as_they_say(
    thrifty: Agent, api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deliver_oddly(request: Any, lines: Sequence[bytes], headers: dict[str, str], fault: Any) -> Any:
        odd = []
        for number, (_, change, *_rest) in enumerate(LINES):
            [line] = [line for line in lines if b": say %d" % number + b'"' in line]
            odd.append(change(line))
        return await deliver_lines(request, odd, headers, fault)

    monkeypatch.setattr(batch_api, "deliver_lines", deliver_oddly)
    await thrifty.submit(*tasks(len(LINES)))
    succeeded = sum(one[2] for one in LINES)
    await wait_batch(thrifty, "e", succeeded=succeeded, failed=len(LINES) - succeeded)
    assert len(api.batches.all()) == 1
    results = {one["id"]: one for one in (await thrifty.get("/v1/results?batch=e&after=0"))["results"]}
    usual = results["e-0"]["cost_usd"]
    found = [
        (name, "say" in results[f"e-{n}"]["text"], results[f"e-{n}"]["cost_usd"], results[f"e-{n}"]["uncertain"])
        for n, (name, *_) in enumerate(LINES)
    ]
    assert found == [
        (name, text, None if factor is None else pytest.approx(usual * float(factor)), uncertain)
        for name, _, text, factor, uncertain in LINES
    ]
    assert results["e-1"]["text"].endswith("say 1\ufffd")
    terms = {one["task"]: one["terms"] for one in await thrifty.get("/v1/charges")}
    assert terms["e-3"] == "unknown=output_tokens"
    assert (terms["e-0"], terms["e-7"]) == ("", "inference_geo=us")
