"""Every kind of refusal, played to its end in virtual time: how many requests, what waits, and what comes of it."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from unittest.mock import patch

import pytest

from farmhand.meter.errors import ApiError
from farmhand.meter.headroom import LONGEST_S, retry_after_s
from farmhand.meter.meter import RetryPolicy
from tests.support.messages_api.limits import Limits
from tests.support.refusals import BACKOFF, NOW, REFUSALS, TOLD, TRIES, Refusal
from tests.unit.meter.simulated import Api, ask, grant, run_in_virtual_time

PASSING = [case for case in REFUSALS if case.ends == "passes"]


def name(case: Refusal) -> str:
    return case.name


def scripted(case: Refusal, times: int) -> Api:
    return Api(Limits(), script=[(case.status, case.headers)] * times, refusal=case.body.encode())


def test_there_are_cases_enough_and_each_has_its_own_name() -> None:
    assert len({case.name for case in REFUSALS}) == len(REFUSALS) >= 60


@pytest.mark.parametrize("case", REFUSALS, ids=name)
def test_a_refusal_that_never_ends_costs_so_many_requests_and_ends_the_task(case: Refusal) -> None:
    async def main() -> None:
        api = scripted(case, 1000)
        one = grant()
        with pytest.raises(ApiError) as refusal:
            await ask(api.meter(), "one", one)
        problem = refusal.value
        assert (problem.code, problem.rejects_key, problem.retryable) == (case.code, case.ends == "parks", False)
        assert len(api.sent) == case.requests
        assert (one.charges, one.uncertain) == ([], 0)
        waits = [after.at - before.answered_at for before, after in pairwise(api.sent)]
        assert all(BACKOFF[0] <= wait <= LONGEST_S + 1e-6 for wait in waits)
        if problem.rejects_key:
            assert problem.hint
            assert problem.status in (401, 402, 403, 429)

    with patch("time.time", lambda: NOW):
        run_in_virtual_time(main)


@pytest.mark.parametrize("case", PASSING, ids=name)
def test_a_refusal_that_passes_is_waited_for_no_shorter_than_the_backoff_and_as_long_as_was_asked(
    case: Refusal,
) -> None:
    async def main() -> None:
        api = scripted(case, 1)
        await ask(api.meter(), "one")
        first, second = api.sent
        least, most = case.wait_s
        assert least - 1e-6 <= second.at - first.answered_at <= most + 0.5

    with patch("time.time", lambda: NOW):
        run_in_virtual_time(main)


@pytest.mark.parametrize("case", PASSING, ids=name)
def test_a_key_is_never_stopped_for_good(case: Refusal) -> None:
    async def main() -> None:
        api = scripted(case, 40)
        meter = api.meter()
        for number in range(60):
            try:
                await ask(meter, str(number))
            except ApiError:
                continue
            break
        assert api.statuses[-1] == 200

    with patch("time.time", lambda: NOW):
        run_in_virtual_time(main)


def test_after_the_longest_wait_one_request_tries() -> None:
    async def main() -> None:
        api = Api(Limits(), script=[(529, {"retry-after": "1e12"})])
        meter = api.meter()
        await asyncio.gather(*(ask(meter, str(number)) for number in range(100)))
        first = api.sent[0]
        at = sorted(one.at for one in api.sent if one.at > first.answered_at)
        assert at[0] == pytest.approx(first.answered_at + LONGEST_S)
        assert at[1] >= at[0] + api.latency_s

    run_in_virtual_time(main)


def test_many_tasks_together_are_bounded_as_one_is() -> None:
    """A short retry-after is no loop for a whole batch: the pause belongs to the gate and grows."""

    async def main() -> None:
        api = Api(Limits(), script=[(429, {"retry-after": "0.001"})] * 10_000, refusal=b"{}")
        meter = api.meter()
        calls = [asyncio.create_task(ask(meter, str(number))) for number in range(64)]
        await asyncio.sleep(600)
        assert 32 < len(api.sent) < 32 + 40
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)

    run_in_virtual_time(main)


def test_numbers_of_the_policy() -> None:
    policy = RetryPolicy()
    assert (policy.attempts, policy.told) == (TRIES, TOLD)
    for attempt in (1, 2, 5, 60, 10_000):
        backoff = min(policy.cap_s, policy.base_s * 2.0 ** min(attempt - 1, 60))
        for asked in (None, 0.0, 0.001, 5.0, 600.0, 1e9):
            wait = policy.delay_s(attempt, asked)
            assert backoff / 2 <= wait <= LONGEST_S
            assert wait >= min(asked or 0.0, LONGEST_S)


@pytest.mark.parametrize("text", ["", " ", "5", "1e3", "0x10", "1_000", "٣", "\x00", "Sat,", "\udcff", "9" * 50_000])
def test_any_header_is_borne(text: str) -> None:
    for which in ("retry-after", "retry-after-ms"):
        told = retry_after_s({which: text, "date": text})
        assert told is None or 0 < told <= LONGEST_S
