"""Where stdout or stderr is full, closed, or left by its reader: one line or none, and an exit status that says it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from farmhand.cli.app import VERBS

BIN = Path(sys.executable).parent
FULL = "farmhand: stdout cannot be written: No space left on device\n"
#: By click, by rich, by ourselves as text, as JSON, and as the JSON of an error.
PRINTS = ("--help", "--version", "cost --json", "status --json", "cloud --help", "run --help")
DOCTOR = "doctor --no-canary --no-ask-shell --skip at-rest"


def shell(home: Path, line: str) -> tuple[int, str, str]:
    """Run `farmhand` with these words in a shell: status, stdout, stderr."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"farmhand {line}"],
        env={"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HOME": str(home), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", [*PRINTS, DOCTOR, *(f"{verb} --help" for verb in VERBS if verb != "run")])
def test_a_full_stdout_is_one_line(tmp_path: Path, words: str) -> None:
    status, out, said = shell(tmp_path, f"{words} > /dev/full")
    assert (status, out, said.splitlines(keepends=True)[0]) == (1, "", FULL)
    assert "Errno" not in said
    assert "Exception ignored" not in said


@pytest.mark.parametrize("words", [*PRINTS, DOCTOR])
def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path, words: str) -> None:
    """141 is what a shell says of cat or ls there: 128 and SIGPIPE."""
    # The reader is gone before the first line: it says so in a file, and the program waits for that.
    gone = tmp_path / "gone"
    waits = f"--version > /dev/null; {{ until test -e {gone}; do sleep 0.05; done"
    status, out, said = shell(tmp_path, f"{waits}; farmhand {words}; }} | {{ exec 0<&-; touch {gone}; }}")
    assert (status, out) == (141, "")
    assert said.count("\n") <= 1  # an error of the command itself
    assert "stdout" not in said
    assert "Pipe" not in said


def test_a_closed_stdout_is_a_usage_error(tmp_path: Path) -> None:
    assert shell(tmp_path, "--help >&-") == (2, "", "farmhand: stdout is closed: there is nowhere to write to\n")


@pytest.mark.parametrize("way", ["2> /dev/full", "2>&-"])
def test_a_lost_stderr_changes_nothing(tmp_path: Path, way: str) -> None:
    told = shell(tmp_path, "status --json")
    assert told[0] == 3
    assert told[2]
    assert shell(tmp_path, f"status --json {way}") == (3, told[1], "")


#: Any Python code that runs while the stream writes is where a signal's handler can raise, after the bytes have gone.
INTERRUPTED = """
import sys
from farmhand.cli import say

class Stop(BaseException):
    pass

def stop(frame, event, _):
    if event == "return" and frame.f_code.co_filename == say.__file__:
        sys.setprofile(None)
        raise Stop

def body():
    sys.{stream}.write("said once ")
    sys.setprofile(stop)
    try:
        sys.{stream}.flush()
    except Stop:
        pass
    sys.setprofile(None)
    sys.{stream}.write("and the rest")

say.end("farmhand", body)
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_signal_amid_a_write_does_not_write_it_twice(stream: str) -> None:
    """A prompt was shown twice when Ctrl-C came just as it was written; of results it would have been worse."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(stream=stream)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "said once and the rest")
