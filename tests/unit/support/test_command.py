"""A forked command does what the program does: the same status, and the same text on each stream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import command


def environ(home: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **more}


@pytest.mark.parametrize(
    ("program", "arguments", "more"),
    [
        ("farmhand", ["--version"], {}),
        ("farmhand", ["--help"], {}),
        ("farmhand", ["status", "--help"], {}),
        ("farmhand", [], {}),
        ("farmhand", ["fly"], {}),
        ("farmhand", ["status", "--nothing"], {}),
        ("farmhand", ["run", "--timeout", "x", "hello"], {}),
        ("farmhand", ["batch", "none.jsonl", "--out", "o", "--json"], {}),
        ("farmhand", ["cloud", "status", "--json"], {"FARMHAND_AWS_ENVIRONMENT": "Bad!"}),
        ("farmhand", ["cloud", "up"], {}),
        ("claude-cheap", ["hello"], {}),
        ("claude-cheap", ["hello"], {"FARMHAND_CONFIG": "/nowhere"}),
        ("claude-cheap", ["--model", "gr\u00fcn\u00e9", "--nothing"], {}),
        ("claude-agent-aws", ["ext::sh", "x"], {}),
    ],
)
def test_it_says_and_returns_what_the_program_does(
    tmp_path: Path, program: str, arguments: list[str], more: dict[str, str]
) -> None:
    variables = environ(tmp_path, **more)
    forked = command.run(program, arguments, variables, tmp_path)
    real = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        env=variables,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def test_nothing_of_one_command_is_in_the_next(tmp_path: Path) -> None:
    first = command.run("farmhand", ["fly"], environ(tmp_path, FARMHAND_DEBUG="1"), tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    second = command.run("claude-cheap", ["-f", "here", "x"], environ(other), other)
    assert first.stderr.startswith("farmhand: ")
    assert second.stderr.startswith("claude-cheap: ")
    assert second.returncode != 0


def test_one_that_takes_too_long_is_ended_and_the_next_one_runs(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(TimeoutError):
        command.run("farmhand", ["run", "-f", str(fifo), "x"], environ(tmp_path), tmp_path, timeout_s=0.5)
    assert command.run("farmhand", ["--version"], environ(tmp_path), tmp_path).returncode == 0
