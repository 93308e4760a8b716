from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from farmhand.cli.signals import Stoppable, Stopped, caught


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as error, Stoppable():
        os.kill(os.getpid(), number)
    assert error.value.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_a_held_signal_waits_and_a_second_one_does_not() -> None:
    with Stoppable() as stoppable:
        stoppable.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped) as error:
            stoppable.release()
        assert error.value.exit_code == 143
        stoppable.release()


def test_a_signal_amid_the_cleanup_does_not_cut_it_short() -> None:
    cleaned: list[str] = []

    @contextmanager
    def half_done() -> Iterator[None]:
        try:
            yield
        finally:
            cleaned.append("half")
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append("whole")

    with pytest.raises(ValueError, match="failed"), Stoppable() as stoppable, half_done(), stoppable.whole_cleanup():
        raise ValueError("failed")
    assert cleaned == ["half", "whole"]
    with pytest.raises(Stopped), Stoppable() as stoppable, half_done():
        pass


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_gets_every_signal_while_entered() -> None:
    numbers: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with caught(lambda number, _frame: numbers.append(number)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert numbers == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before
