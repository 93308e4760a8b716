"""Streaming to a terminal, and stopping: what ends here ends on the host and at the API."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from farmhand.core.ids import new_task_id
from tests.support.farm import ApiControl, Farm
from tests.support.messages_api.answer import echo
from tests.support.patience import pause

PATIENCE_S = 60.0


def until(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + PATIENCE_S
    while (began := time.monotonic()) < deadline:
        if value := condition():
            return value
        pause(began, 0.05)
    raise AssertionError(f"{what}: not within {PATIENCE_S:g} s")


@pytest.mark.parametrize("engine", ["api", "cli"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_task_on_the_host(
    farm: Farm, api: ApiControl, engine: str, number: signal.Signals
) -> None:
    api.fault(kind="stalled", after_events=2)
    task_id = new_task_id()
    process = subprocess.Popen(
        [farm.root / ".venv/bin/claude-cheap", "--engine", engine, "--id", task_id, "Take your time"],
        env=farm.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(api.posts, "the request at the API")
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (128 + number, "claude-cheap: task cancelled\n"), out
    status, answer = farm.agent("GET", f"/v1/tasks/{task_id}")
    assert (status, answer["task"]["state"]) == (200, "cancelled")
    # Nobody waits for the answer any more, so nobody is billed for the rest of it.
    until(lambda: api.posts()[-1].get("aborted"), "the end of the request at the API")
    # Spare sandboxes wait for the next task; none of them has a CLI.
    until(lambda: farm.exec("pgrep", "-x", "claude").returncode == 1, "the end of the CLI")


def test_text_comes_to_a_terminal_as_it_is_written(farm: Farm, api: ApiControl) -> None:
    """The API says a few words and falls silent: they are on the screen while the rest is not there."""
    prompt = "Tell it slowly, word by word, please"
    command = [str(farm.root / ".venv/bin/claude-cheap"), prompt]
    whole = echo(prompt) + "\n"
    for fault in (True, False):
        if fault:
            api.fault(kind="stalled", after_events=6)
        master, slave = pty.openpty()
        with subprocess.Popen(command, env=farm.env, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave) as process:
            os.close(slave)
            text = _read(master)
            if fault:
                assert 0 < len(text) < len(whole)
                process.send_signal(signal.SIGINT)
            while data := _read(master):
                text += data
        os.close(master)
        shown = text.decode().replace("\r\n", "\n")
        if fault:  # what was written, then why there is no more
            shown = shown.partition("\nclaude-cheap: ")[0]
            assert shown == whole[: len(shown)]
        else:
            assert shown == whole


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end of a terminal closes with EIO
        return b""
