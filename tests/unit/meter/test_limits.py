from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

from farmhand.core.task import Usage
from farmhand.meter.errors import ApiError
from farmhand.meter.limits import FIRST_WINDOW, Gate
from farmhand.meter.meter import Meter
from tests.support.messages_api.limits import Limits
from tests.unit.meter.simulated import KEY, MODEL, Api, ask, grant, run_in_virtual_time


def gate_of(meter: Meter) -> Gate:
    return meter.limits.gate(grant().key.fingerprint, MODEL)


async def ask_many(meter: Meter, count: int) -> float:
    """Ask `count` times at once; the virtual seconds that it took."""
    clock = asyncio.get_running_loop().time
    started = clock()
    await asyncio.gather(*(ask(meter, str(number)) for number in range(count)))
    return clock() - started


def longest_silences(api: Api) -> list[tuple[float, float]]:
    """From when to when the API had asked not to be asked."""
    return [(one.answered_at, one.answered_at + one.retry_after) for one in api.sent if one.retry_after is not None]


def check_silence(api: Api) -> None:
    for start, end in longest_silences(api):
        assert not [one for one in api.sent if start < one.at < end]


@pytest.mark.parametrize(
    ("limits", "each", "latency_s"),
    [
        (Limits(requests=60), 1, 1.0),
        (Limits(requests=600), 1, 0.2),
        (Limits(requests=50, rounded=True), 1, 3.0),
        (Limits(input_tokens=3000), 50, 1.0),
        (Limits(output_tokens=6000), 100, 1.0),
        (Limits(requests=40, output_tokens=60_000), 1, 2.0),
        (Limits(requests=20, minute_s=5.0), 1, 0.1),
    ],
    ids=str,
)
def test_limits_are_kept_to_before_they_refuse_and_used_up(limits: Limits, each: int, latency_s: float) -> None:
    async def main() -> None:
        api = Api(limits, latency_s=latency_s)
        meter = api.meter()
        took = await ask_many(meter, 400)
        assert api.statuses.count(200) == 400
        refused = [number for number, status in enumerate(api.statuses) if status != 200]
        # Nothing is known of the limits before the first answers; the first window's burst may be refused.
        assert len([number for number in refused if number >= 2 * FIRST_WINDOW]) <= 4, refused
        check_silence(api)
        most = min(value for value in (limits.requests, limits.input_tokens, limits.output_tokens) if value is not None)
        at_best = max(0.0, 400 * each - most) / most * limits.minute_s
        assert took <= at_best * 1.25 + 5 * latency_s + 3

    run_in_virtual_time(main)


def test_a_small_limit_is_learnt_from_its_first_refusals() -> None:
    async def main() -> None:
        api = Api(Limits(requests=5))
        await ask_many(api.meter(), 50)
        assert api.statuses.count(200) == 50
        assert len([status for status in api.statuses[FIRST_WINDOW:] if status == 429]) <= 2
        check_silence(api)

    run_in_virtual_time(main)


@pytest.mark.parametrize("status", [429, 529])
def test_the_window_finds_what_the_api_bears_at_once(status: int) -> None:
    async def main() -> None:
        limits = Limits(concurrent=10, concurrent_status=status)  # type: ignore[arg-type]  # one of the two
        api = Api(limits, told=False)
        meter = api.meter(attempts=50)
        took = await ask_many(meter, 1000)
        assert api.statuses.count(200) == 1000
        assert len([one for one in api.statuses[200:] if one != 200]) <= 100
        assert took <= 1000 / 10 * 1.6
        assert gate_of(meter).running == 0

    run_in_virtual_time(main)


def test_the_window_shrinks_once_for_one_loss_and_grows_again() -> None:
    async def main() -> None:
        api = Api(Limits(), script=[(529, {})] * 8)
        meter = api.meter()
        gate = gate_of(meter)
        calls = [asyncio.create_task(ask(meter, str(number))) for number in range(64)]
        await asyncio.sleep(0.6)
        assert api.statuses.count(529) == 8
        assert int(gate.window) == FIRST_WINDOW // 2
        await asyncio.gather(*calls)
        assert gate.window > FIRST_WINDOW // 2
        before = gate.window
        await ask_many(meter, 500)
        assert gate.window > before

    run_in_virtual_time(main)


def test_a_window_that_is_not_used_does_not_grow() -> None:
    async def main() -> None:
        meter = Api(Limits()).meter()
        for number in range(100):
            await ask(meter, str(number))
        assert gate_of(meter).window == FIRST_WINDOW

    run_in_virtual_time(main)


def test_nothing_is_sent_before_retry_after_is_over_and_then_one_by_one() -> None:
    async def main() -> None:
        api = Api(Limits(), script=[(429, {"retry-after": "7"})])
        meter = api.meter()
        await ask_many(meter, 100)
        first = api.sent[0]
        later = [one for one in api.sent if one.at > first.answered_at]
        assert later[0].at == pytest.approx(first.answered_at + 7)
        # The one that was refused is the oldest, so it goes first; the rest follows in growing steps.
        assert later[0].name == first.name
        steps = [len([one for one in later if one.at == at]) for at in sorted({one.at for one in later})]
        assert steps[0] == 1
        assert all(more <= 3 * max(1, fewer) for fewer, more in pairwise(steps))

    run_in_virtual_time(main)


@pytest.mark.parametrize("status", [503, 529])
def test_a_retry_after_of_any_passing_error_holds_the_gate(status: int) -> None:
    async def main() -> None:
        api = Api(Limits(), script=[(status, {"retry-after": "30"})])
        await ask_many(api.meter(), 40)
        check_silence(api)
        assert longest_silences(api)

    run_in_virtual_time(main)


def test_a_refusal_that_says_when_to_come_back_is_no_try() -> None:
    async def main() -> None:
        api = Api(Limits(), script=[(429, {"retry-after": "5"})] * 20)
        one = grant()
        await ask(api.meter(attempts=3), "one", one)
        assert (one.retries, len(one.charges), one.uncertain) == (20, 1, 0)
        assert one.problem is None

    run_in_virtual_time(main)


@pytest.mark.parametrize("status", [429, 500, 529])
def test_one_that_does_not_is(status: int) -> None:
    async def main() -> None:
        api = Api(Limits(), script=[(status, {})] * 20)
        one = grant()
        with pytest.raises(ApiError):
            await ask(api.meter(attempts=3), "one", one)
        assert api.statuses == [status] * 3
        assert one.problem is not None
        assert not one.charges

    run_in_virtual_time(main)


@pytest.mark.parametrize("status", [401, 402, 403, 413])
def test_a_final_error_is_sent_once_and_moves_no_window(status: int) -> None:
    async def main() -> None:
        api = Api(Limits(), script=[(status, {"retry-after": "9"})])
        meter = api.meter()
        with pytest.raises(ApiError) as refusal:
            await ask(meter, "one")
        assert refusal.value.rejects_key is (status in {401, 402})
        assert len(api.sent) == 1
        await ask(meter, "two")
        assert api.sent[1].at == api.sent[0].answered_at
        assert gate_of(meter).window == FIRST_WINDOW

    run_in_virtual_time(main)


def test_first_come_first_sent() -> None:
    async def main() -> None:
        api = Api(Limits(requests=30))
        await ask_many(api.meter(), 120)
        assert list(dict.fromkeys(int(one.name) for one in api.sent)) == list(range(120))
        assert api.statuses[FIRST_WINDOW:] == [200] * (len(api.sent) - FIRST_WINDOW)

    run_in_virtual_time(main)


def test_keys_and_models_have_gates_of_their_own() -> None:
    async def main() -> None:
        meter = Api(Limits(), script=[(429, {"retry-after": "60"})]).meter()
        call = asyncio.create_task(ask(meter, "one"))
        await asyncio.sleep(2)
        [waiting] = meter.limits.waiting()
        assert (waiting.reason, waiting.tasks) == ("rate_limit", 1)
        assert waiting.until is not None
        assert waiting.detail == f"{MODEL}: the API asked to wait (retry-after)"
        ticket = await meter.limits.gate("another", MODEL).enter(0, 100, 100)
        meter.limits.gate("another", MODEL).leave(ticket)
        call.cancel()
        await asyncio.wait({call})
        assert not meter.limits.waiting()

    run_in_virtual_time(main)


def test_what_waits_and_what_is_left_is_told() -> None:
    async def main() -> None:
        api = Api(Limits(requests=40))
        meter = api.meter()
        calls = [asyncio.create_task(ask(meter, str(number))) for number in range(60)]
        await asyncio.sleep(0.1)
        [waiting] = meter.limits.waiting()
        assert (waiting.tasks, waiting.until) == (60 - FIRST_WINDOW, None)
        assert "32 requests are under way" in waiting.detail
        await asyncio.sleep(5)
        [waiting] = meter.limits.waiting()
        assert waiting.detail == f"{MODEL}: the API's limit of requests a minute"
        [room] = meter.limits.headroom()
        assert (room.model, room.fingerprint) == (MODEL, grant().key.fingerprint)
        assert room.kinds["requests"][0] == 40
        assert room.kinds["requests"][1] <= 3
        assert KEY not in repr(room)
        await asyncio.gather(*calls)

    run_in_virtual_time(main)


@pytest.mark.parametrize("seed", range(20))
def test_callers_that_leave_at_any_moment_leave_nothing_behind(seed: int) -> None:
    async def main() -> None:
        dice = random.Random(seed)  # noqa: S311  (a test's order)
        api = Api(Limits(requests=100, concurrent=20), latency_s=0.5)
        meter = api.meter()
        grants = [grant() for _ in range(200)]
        calls = [asyncio.create_task(ask(meter, str(number), one)) for number, one in enumerate(grants)]
        for call in calls:
            asyncio.get_running_loop().call_later(dice.uniform(0, 120), call.cancel)
        await asyncio.wait(calls)
        gate = gate_of(meter)
        assert (gate.running, gate.idle, meter.limits.waiting()) == (0, True, [])
        assert sum(len(one.charges) for one in grants) == api.statuses.count(200)
        # What was under way when its caller left has status 0 in the API's list.
        assert sum(one.uncertain for one in grants) == api.statuses.count(0)
        assert await ask_many(meter, 5) < 60

    run_in_virtual_time(main)


async def test_a_waiter_let_in_and_cancelled_at_once_gives_its_place_on() -> None:
    gate = Gate(clock=asyncio.get_running_loop().time, sleep=asyncio.sleep)
    gate.window = 1.0
    first = await gate.enter(gate.order(), 1, 1)
    second, third = (asyncio.create_task(gate.enter(gate.order(), 1, 1)) for _ in range(2))
    await asyncio.sleep(0)
    gate.leave(first, Usage())
    second.cancel()
    ticket = await asyncio.wait_for(third, 120)
    assert second.cancelled()
    gate.leave(ticket)
    assert gate.running == 0
