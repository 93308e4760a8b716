from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.meter.grants import Grant, Grants, Key
from farmhand.meter.meter import RetryPolicy

KEY = "sk-ant-test-canary-0123456789"


def grant() -> Grant:
    return Grant(task_id="t", key=Key(KEY), model="m")


async def test_a_token_opens_its_grant_until_it_is_revoked() -> None:
    grants = Grants()
    one, two = grant(), grant()
    token, other = grants.issue(one), grants.issue(two)
    assert token != other
    assert grants.find(token) is one
    await grants.revoke(token)
    await grants.revoke(token)
    assert grants.find(token) is None
    assert grants.find(other) is two
    assert len(grants) == 1


@given(st.text())
def test_nothing_else_opens_a_grant(text: str) -> None:
    grants = Grants()
    grants.issue(grant())
    assert grants.find(text) is None


def test_a_key_shows_its_fingerprint_only() -> None:
    key = Key(KEY)
    for shown in (repr(key), str(key), f"{key}", repr(grant())):
        assert KEY not in shown
    assert key.fingerprint in repr(key)
    for escape in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            escape(key)


@given(attempt=st.integers(1, 60), asked=st.none() | st.floats(0, 600))
def test_a_retry_waits_at_least_what_was_asked_and_never_longer_than_the_cap_beyond(
    attempt: int, asked: float | None
) -> None:
    policy = RetryPolicy()
    delay = policy.delay_s(attempt, asked)
    assert (asked or 0) <= delay <= (asked or 0) + policy.cap_s
