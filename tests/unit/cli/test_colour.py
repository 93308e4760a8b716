"""Colour is what the user's variables say, in every command that has any, on a terminal and in a pipe."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pexpect  # type: ignore[import-untyped]  # it has no stubs
import pytest

from farmhand.cli.colour import coloured

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
STYLE = re.compile(r"\x1b\[[0-9;]*m")
#: The variables, and whether there is colour on a terminal and in a pipe.
CASES = [
    ({}, True, False),
    ({"NO_COLOR": "1"}, False, False),
    ({"NO_COLOR": ""}, True, False),
    ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
    ({"FORCE_COLOR": "1"}, True, True),
    ({"FORCE_COLOR": "0"}, False, False),
    ({"CLICOLOR_FORCE": "1"}, True, True),
    ({"CLICOLOR": "0"}, False, False),
    ({"CLICOLOR": "1"}, True, False),
    ({"TERM": "dumb"}, False, False),
    ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("variables", "screen", "pipe"), CASES)
def test_the_variables(variables: dict[str, str], screen: bool, pipe: bool) -> None:
    environ = {"TERM": "xterm", **variables}
    assert (coloured(Screen(), environ), coloured(io.StringIO(), environ)) == (screen, pipe)
    assert coloured(None, {"TERM": "xterm"}) is False


@pytest.mark.parametrize("words", [["cost", "--no-merge", "--no-interactive"], ["doctor", "--skip", "shells"]])
@pytest.mark.parametrize(
    ("variables", "screen", "pipe"),
    [({}, True, False), ({"NO_COLOR": "1"}, False, False), ({"FORCE_COLOR": "1"}, True, True)],
)
def test_real_output(tmp_path: Path, words: list[str], variables: dict[str, str], screen: bool, pipe: bool) -> None:
    environ = {"HOME": str(tmp_path), "PATH": f"{BIN}:/usr/bin:/bin", "TERM": "xterm", **variables}
    environ["FARMHAND_UPSTREAM_URL"] = "http://127.0.0.1:9"
    hosts = tmp_path / ".config/farmhand/hosts.json"
    hosts.parent.mkdir(parents=True)
    hosts.write_text('{"hosts": {}}')
    shown = pexpect.run(
        f"{BIN}/farmhand {' '.join(words)}", env=environ, cwd=str(tmp_path), timeout=120, encoding="utf-8"
    )
    assert len(shown) > 100, shown
    assert bool(STYLE.search(shown)) == screen, shown
    piped = subprocess.run(
        [BIN / "farmhand", *words], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert bool(STYLE.search(piped.stdout)) == pipe, piped.stdout
    assert not STYLE.search(piped.stderr)


def test_nothing_makes_a_console_of_its_own() -> None:
    made = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "src/farmhand").rglob("*.py")
        if path.name != "colour.py" and re.search(r"\bConsole\(", path.read_text("utf-8"))
    ]
    assert made == [], "use farmhand.cli.colour.console, which knows NO_COLOR and its like"
