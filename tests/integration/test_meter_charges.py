"""What the meter charges, what it leaves uncertain, and that budgets hold, against the loopback API's own log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from functools import partial

import pytest
from aiohttp import web

from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from farmhand.core.terms import DEAREST
from farmhand.meter import policy, reserve
from farmhand.meter.budget import Budget, BudgetSpent
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Grant, Key
from farmhand.meter.upstream import Upstream
from tests.support.messages_api import DEFAULT_KEY, Fault, MessagesApi, Verbatim
from tests.support.messages_api.limits import Limits
from tests.support.meter import BODY, MODEL, Served, total

STREAM = BODY | {"stream": True}


def body(**more: object) -> bytes:
    return json.dumps(STREAM | more).encode()


async def ask(served: Served, grant: Grant, data: bytes | None = None) -> None:
    """One request, read to its end."""
    async with served.meter.send(
        grant, "/v1/messages", data or body(), {"anthropic-version": "2023-06-01"}
    ) as exchange:
        while await exchange.piece():
            pass


def grant(*budgets: Budget, model: str = MODEL) -> Grant:
    return Grant(task_id="t", key=Key(DEFAULT_KEY), model=model, budgets=budgets)


def at_most(data: bytes, *, model: str = MODEL) -> int:
    """Pico-dollars that are reserved for a request."""
    request = policy.read(data, model=model, max_tokens=128_000)
    most = reserve.cost(request, partial(price_table().cost, model, terms=DEAREST))
    assert most is not None
    return most


async def until_asked(api: MessagesApi, count: int = 1) -> None:
    for _ in range(12000):
        if len(api.posts) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(api.posts)} requests, not {count}")


@pytest.mark.parametrize("stream", [True, False])
async def test_each_answer_is_a_charge_with_the_api_s_own_id(served: Served, api: MessagesApi, stream: bool) -> None:
    one = grant()
    for _ in range(3):
        await ask(served, one, body(stream=stream))
    assert [charge.request_id for charge in one.charges] == [post.request_id for post in api.posts]
    assert all(charge.complete for charge in one.charges)
    assert [charge.usage.output_tokens for charge in one.charges] == [p.usage["output_tokens"] for p in api.posts]
    assert (one.uncertain, total(one).requests) == (0, 3)


async def test_tokens_kept_in_the_cache_for_an_hour_are_counted_apart(served: Served, api: MessagesApi) -> None:
    system = [{"type": "text", "text": "word " * 30_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    one = grant()
    await ask(served, one, body(system=system))
    [post] = api.posts
    written = post.usage["cache_creation"]["ephemeral_1h_input_tokens"]
    assert written > 0
    assert total(one).cache_creation_1h_input_tokens == total(one).cache_creation_input_tokens == written


@pytest.mark.parametrize(
    ("fault", "known"),
    [
        (Fault(kind="cut", after_events=4), True),
        (Fault(kind="cut", after_events=0), False),
        (Fault(kind="stalled", after_events=4), True),
        (Fault(kind="stream_error", after_events=4), True),
    ],
    ids=lambda value: f"{value.kind} {value.after_events}" if isinstance(value, Fault) else "",
)
async def test_a_broken_answer_is_charged_as_far_as_it_told_and_uncertain(
    served: Served, api: MessagesApi, fault: Fault, known: bool
) -> None:
    api.fault(fault)
    budget = Budget("task", 10**12)
    one = grant(budget)
    # A stream that ends with an error of the API's is passed on whole: the engine, or the CLI, reads it there.
    with contextlib.nullcontext() if fault.kind == "stream_error" else pytest.raises(ApiError):
        await ask(served, one)
    assert one.problem is not None
    assert one.problem.retryable
    assert one.uncertain == 1
    assert [charge.complete for charge in one.charges] == ([False] if known else [])
    assert total(one).input_tokens == (api.posts[0].usage["input_tokens"] if known else 0)
    # Nobody knows what it cost: the budget takes it at the most.
    most = at_most(body())
    assert (budget.spent_pico, budget.reserved_pico) == (most, 0)


async def test_a_lost_connection_is_uncertain_and_tried_again(served: Served, api: MessagesApi) -> None:
    api.fault(Fault(kind="reset", count=2))
    one = grant()
    await ask(served, one)
    assert (one.uncertain, len(one.charges), one.retries) == (2, 1, 2)


async def test_silence_before_the_answer_is_uncertain(served: Served, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=60))
    one = grant()
    await ask(served, one)
    assert (one.uncertain, len(one.charges), one.retries) == (1, 1, 1)


async def test_a_request_that_never_left_is_not_uncertain(served: Served) -> None:
    served.meter._upstream = Upstream("http://127.0.0.1:9")
    one = grant()
    with pytest.raises(ApiError):
        await ask(served, one)
    assert (one.uncertain, one.charges, one.retries) == (0, [], 3)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 413, 429, 500, 529])
async def test_a_refusal_is_not_charged(served: Served, api: MessagesApi, status: int) -> None:
    api.fault(Fault(kind="status", status=status, count=-1))
    budget = Budget("task", 10**12)
    one = grant(budget)
    with pytest.raises(ApiError) as refusal:
        await ask(served, one)
    assert refusal.value.rejects_key is (status in {401, 402})
    assert len(api.posts) == (4 if status >= 429 else 1)
    assert (one.uncertain, one.charges) == (0, [])
    assert (budget.spent_pico, budget.reserved_pico) == (0, 0)


async def test_a_spent_spend_limit_parks_the_key(served: Served, api: MessagesApi) -> None:
    api.fault(Fault(kind="spend_limit"))
    with pytest.raises(ApiError) as refusal:
        await ask(served, grant())
    assert refusal.value.rejects_key
    assert len(api.posts) == 1


async def test_a_stream_that_its_client_cuts_is_charged_for_what_had_passed(served: Served, api: MessagesApi) -> None:
    api.state.event_s = 0.02
    one = grant(Budget("task", 10**12))
    long = body(max_tokens=2000, messages=[{"role": "user", "content": "a long story " * 60}])
    passed = b""
    async with served.meter.send(one, "/v1/messages", long, {"anthropic-version": "2023-06-01"}) as exchange:
        while passed.count(b"text_delta") < 6:
            passed += await exchange.piece()
    [charge] = one.charges
    texts = [json.loads(line[5:])["delta"].get("text", "") for line in passed.split(b"\n") if b"text_delta" in line]
    assert (charge.complete, charge.terms.text, one.uncertain) == (False, "output=estimated", 1)
    assert charge.usage.output_tokens == -(-len("".join(texts)) // 2) > 20
    assert charge.usage.input_tokens == api.posts[0].usage["input_tokens"]


@pytest.mark.parametrize("figure", [10**14, 2**63, -1, 1.5, "12", None])
async def test_an_unknown_figure_is_settled_at_the_most(served: Served, api: MessagesApi, figure: object) -> None:
    odd = json.dumps({"content": [], "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": figure}})
    api.fault(Fault(kind="verbatim", answer=Verbatim(body=odd.encode())))
    budget = Budget("task", 10**12)
    one = grant(budget)
    await ask(served, one)
    [charge] = one.charges
    assert (charge.complete, charge.terms.text, one.uncertain) == (True, "unknown=output_tokens", 1)
    assert (budget.spent_pico, budget.reserved_pico) == (at_most(body()), 0)


async def test_a_place_that_costs_more_is_within_what_was_reserved(served: Served, api: MessagesApi) -> None:
    usage = {"input_tokens": 40, "output_tokens": 64, "inference_geo": "us"}
    answer = json.dumps({"content": [], "stop_reason": "end_turn", "usage": usage})
    api.fault(Fault(kind="verbatim", answer=Verbatim(body=answer.encode())))
    budget = Budget("task", 10**12)
    one = grant(budget)
    await ask(served, one)
    standard = price_table().cost(MODEL, total(one))
    most = at_most(body())
    assert standard is not None
    assert most is not None
    assert budget.spent_pico * 10 == standard * 11
    assert most >= budget.spent_pico


@pytest.mark.parametrize("terms", [{"inference_geo": "eu"}, {"speed": "fast"}, {"service_tier": "priority"}])
@pytest.mark.parametrize("priced", [True, False])
async def test_terms_without_a_price_are_uncertain_unless_the_model_has_none(
    served: Served, api: MessagesApi, priced: bool, terms: dict[str, str]
) -> None:
    usage = {"input_tokens": 40, "output_tokens": 64, **terms}
    answer = json.dumps({"content": [], "stop_reason": "end_turn", "usage": usage})
    api.fault(Fault(kind="verbatim", answer=Verbatim(body=answer.encode())))
    if not priced:
        served.meter._price = lambda *_: None
    budget = Budget("task", 10**12 if priced else None)
    one = grant(budget)
    await ask(served, one)
    [charge] = one.charges
    assert charge.complete
    most = at_most(body())
    assert (one.uncertain, one.held, budget.spent_pico) == ((1, {1: most}, most) if priced else (0, {}, 0))


async def test_terms_without_a_price_are_uncertain_also_where_nothing_could_be_reserved(
    served: Served, api: MessagesApi
) -> None:
    usage = {"input_tokens": 40, "output_tokens": 64, "speed": "fast"}
    answer = json.dumps({"content": [], "stop_reason": "end_turn", "usage": usage})
    api.fault(Fault(kind="verbatim", answer=Verbatim(body=answer.encode())))
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}}
    one = grant(Budget("day", None))
    await ask(served, one, body(messages=[{"role": "user", "content": [pdf]}]))
    assert (one.uncertain, one.held) == (1, {1: None})


@pytest.mark.parametrize("kind", ["slow", "stalled"])
async def test_who_leaves_while_the_api_works_leaves_an_uncertain_request(
    served: Served, api: MessagesApi, kind: str
) -> None:
    api.fault(Fault(kind=kind, delay_s=60))  # type: ignore[arg-type]  # the parameters above are its kinds
    budget = Budget("task", 10**12)
    one = grant(budget)
    call = asyncio.create_task(ask(served, one))
    await until_asked(api)
    await asyncio.sleep(0.05)
    call.cancel()
    await asyncio.wait({call})
    assert one.uncertain == 1
    assert budget.reserved_pico == 0
    assert budget.spent_pico > 0
    assert served.meter.limits.headroom()[0].running == 0


async def test_a_budget_without_room_refuses_before_anything_is_sent(served: Served, api: MessagesApi) -> None:
    wide, narrow = Budget("day 2026-11-24", 10**12), Budget("batch b", 1000)
    one = grant(wide, narrow)
    with pytest.raises(BudgetSpent, match="budget of the batch b has no room"):
        await ask(served, one)
    assert isinstance(one.problem, BudgetSpent)
    assert (wide.reserved_pico, wide.spent_pico) == (0, 0)
    assert not api.posts


async def test_a_client_over_http_is_told_that_the_budget_is_spent(served: Served, api: MessagesApi) -> None:
    served.grant.budgets = (Budget("task", 1000),)
    status, text = await served.post()
    assert status == 403
    assert "the budget of the task has no room" in text
    assert not api.posts


async def test_without_a_price_no_budget_has_room(served: Served, api: MessagesApi) -> None:
    with pytest.raises(BudgetSpent, match="the price of claude-nobody-1 is not known"):
        await ask(served, grant(Budget("task", 10**12), model="claude-nobody-1"), body(model="claude-nobody-1"))
    assert not api.posts


def count_calls(api: MessagesApi) -> int:
    return sum(entry.path.endswith("/count_tokens") for entry in api.log)


async def test_what_fits_by_its_bytes_is_not_counted_first(served: Served, api: MessagesApi) -> None:
    await ask(served, grant(Budget("task", at_most(body()))))
    assert (len(api.posts), count_calls(api)) == (1, 0)


async def test_what_fits_only_by_its_tokens_is_counted_and_passes(served: Served, api: MessagesApi) -> None:
    data = body(messages=[{"role": "user", "content": "an ordinary text " * 5000}])
    budget = Budget("task", at_most(data) // 2)
    one = grant(budget)
    await ask(served, one, data)
    assert (len(api.posts), count_calls(api)) == (1, 1)
    assert json.loads(api.log[0].body)["messages"] == json.loads(data)["messages"]
    assert 0 < budget.spent_pico < at_most(data) // 2
    assert (budget.reserved_pico, len(one.charges)) == (0, 1)


async def test_what_does_not_fit_by_its_tokens_either_is_refused(served: Served, api: MessagesApi) -> None:
    data = body(messages=[{"role": "user", "content": "an ordinary text " * 5000}])
    with pytest.raises(BudgetSpent):
        await ask(served, grant(Budget("task", at_most(data) // 10)), data)
    assert (len(api.posts), count_calls(api)) == (0, 1)


@pytest.mark.parametrize("pages", [1, 100])
async def test_a_pdf_is_counted_by_the_api(served: Served, api: MessagesApi, pages: int) -> None:
    data = base64.b64encode(b"%PDF-1.7 " + b"<< /Type /Page >>" * pages).decode()
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}
    budget = Budget("task", 10**10)
    if pages == 1:
        await ask(served, grant(budget), body(messages=[{"role": "user", "content": [pdf]}]))
        assert budget.spent_pico >= 3000 * 10**5
    else:
        with pytest.raises(BudgetSpent):
            await ask(served, grant(budget), body(messages=[{"role": "user", "content": [pdf]}]))
    assert count_calls(api) == 1
    assert (len(api.posts), budget.reserved_pico) == (int(pages == 1), 0)


async def test_a_pdf_without_a_limit_is_not_counted(served: Served, api: MessagesApi) -> None:
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}}
    await ask(served, grant(Budget("day", None)), body(messages=[{"role": "user", "content": [pdf]}]))
    assert (len(api.posts), count_calls(api)) == (1, 0)


@pytest.mark.parametrize("answer", [b"{}", b'{"input_tokens": -1}', b'{"input_tokens": 1e99}', b"x", b"[" * 9999])
async def test_a_count_that_is_none_is_an_error_and_nothing_is_sent(
    served: Served, api: MessagesApi, answer: bytes
) -> None:
    async def count(_request: web.Request) -> web.Response:
        return web.Response(body=answer, content_type="application/json")

    elsewhere = web.Application()
    elsewhere.router.add_post("/v1/messages/count_tokens", count)
    runner = web.AppRunner(elsewhere)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.meter._upstream = Upstream(f"http://127.0.0.1:{runner.addresses[0][1]}")
    data = body(messages=[{"role": "user", "content": "an ordinary text " * 5000}])
    budget = Budget("task", at_most(data) // 2)
    with pytest.raises(ApiError, match="does not tell how many tokens"):
        await ask(served, grant(budget), data)
    await runner.cleanup()
    assert (budget.spent_pico, budget.reserved_pico) == (0, 0)
    assert not api.posts


@pytest.mark.parametrize(
    "name", [b"cache_control", b"cache\\u005fcontrol", b"\\u0063\\u0061che_control"], ids=lambda name: name.decode()
)
async def test_a_cache_that_escapes_hide_is_reserved_for(served: Served, api: MessagesApi, name: bytes) -> None:
    marked = b'[{"type":"text","text":"%b","%b":{"type":"ephemeral","ttl":"1h"}}]' % (b"word " * 4000, name)
    data = body(system="@").replace(b'"@"', marked)
    api.fault(Fault(kind="cut", after_events=4))
    budget = Budget("task", 10**12)
    with pytest.raises(ApiError):
        await ask(served, grant(budget), data)
    # At the most, which is above what the API has counted: 1-hour cache writes cost twice the price of input.
    cost = price_table().cost(
        MODEL,
        Usage(
            cache_creation_input_tokens=api.posts[0].usage["cache_creation_input_tokens"],
            cache_creation_1h_input_tokens=api.posts[0].usage["cache_creation"]["ephemeral_1h_input_tokens"],
            output_tokens=64,
        ),
    )
    assert cost is not None
    assert budget.spent_pico == at_most(data) > cost > 5000 * 2 * 10**5


async def test_many_at_once_never_pass_the_budget_and_what_is_settled_is_what_the_api_counted(
    served: Served, api: MessagesApi
) -> None:
    most = at_most(body())
    batch, day = Budget("batch b", most * 3), Budget("day", None)
    grants = [grant(batch, day) for _ in range(60)]
    outcomes = await asyncio.gather(*(ask(served, one) for one in grants), return_exceptions=True)
    refused = [one for one in outcomes if one is not None]
    assert refused
    assert all(isinstance(one, BudgetSpent) for one in refused)
    cost = sum(
        price_table().cost(MODEL, Usage(input_tokens=p.usage["input_tokens"], output_tokens=p.usage["output_tokens"]))
        or 0
        for p in api.posts
    )
    assert batch.spent_pico == day.spent_pico == cost <= most * 3
    # It is used up: one more might pass it.
    assert batch.spent_pico > most * 2
    assert (batch.reserved_pico, day.reserved_pico) == (0, 0)


async def test_many_more_callers_than_the_api_bears_all_get_their_answer(served: Served, api: MessagesApi) -> None:
    api.limit(Limits(requests=40, minute_s=2.0, concurrent=12))
    served.meter.limits._clock, served.meter.limits._sleep = asyncio.get_running_loop().time, asyncio.sleep
    grants = [grant() for _ in range(150)]
    await asyncio.gather(*(ask(served, one) for one in grants))
    assert all(len(one.charges) == 1 and not one.uncertain for one in grants)
    refused = [post for post in api.posts if post.limited]
    assert len(refused) <= 60, [post.limited for post in api.posts]
    assert api.state.limits.peak <= 12
