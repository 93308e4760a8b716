"""Which key a task runs on, while one takes another's place."""

from __future__ import annotations

from farmhand.agent.keys import Keys
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Key

A, B, C = (Key(f"sk-ant-test-{name}-00000000") for name in "abc")
DEAD = ApiError("authentication_error", "invalid x-api-key")


def rotated() -> Keys:
    keys = Keys()
    keys.hold(A)
    keys.supersede(A.fingerprint, B)
    return keys


def test_the_old_key_is_in_reserve_and_the_new_one_in_its_place() -> None:
    keys = rotated()
    assert (keys.default, keys.held, keys.reserve) == (B, [B.fingerprint], A.fingerprint)
    assert keys.of(A.fingerprint) is B
    assert keys.stand_in(A) is B
    keys.supersede(A.fingerprint, B)  # said again
    assert keys.reserve == A.fingerprint


def test_a_refused_new_key_brings_the_old_one_back() -> None:
    keys = rotated()
    keys.refuse(B, DEAD)
    assert keys.default is A
    assert keys.of(B.fingerprint) is A
    assert keys.stand_in(B) is A
    assert keys.unusable == []
    assert list(keys.refused) == [B.fingerprint]


def test_when_both_are_refused_work_waits() -> None:
    keys = rotated()
    keys.refuse(B, DEAD)
    keys.refuse(A, DEAD)
    assert keys.default is None
    assert sorted(keys.unusable) == sorted([A.fingerprint, B.fingerprint])


def test_forgotten_it_cannot_come_back() -> None:
    keys = rotated()
    assert keys.forget(A.fingerprint)
    assert not keys.forget(A.fingerprint)
    keys.refuse(B, DEAD)
    assert keys.default is None
    assert keys.stand_in(A) is A, "there is nothing better than what the client brings"


def test_a_chain_and_a_ring() -> None:
    keys = rotated()
    keys.supersede(B.fingerprint, C)
    assert keys.stand_in(A) is C
    keys.supersede(C.fingerprint, A)
    assert {key: keys.stand_in(key) for key in (A, B, C)} == {A: A, B: A, C: A}


def test_back_again() -> None:
    keys = rotated()
    keys.supersede(B.fingerprint, A)
    assert (keys.default, keys.reserve) == (A, B.fingerprint)
    assert keys.stand_in(B) is A
