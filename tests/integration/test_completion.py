"""Real shells on a terminal complete the commands when the tab key is pressed: options, values, files their own way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pexpect  # type: ignore[import-untyped]  # it has no stubs
import pytest

from farmhand.cli.completion import main
from farmhand.cost.rows import FinishedTask
from farmhand.cost.store import CostStore
from tests.integration.dispatch.conftest import BIN
from tests.support.shells import Home
from tests.unit.cost.ledgers import NOW

#: What is typed before the tab key → what stands in the line after it.
CASES = {
    "claude-cheap --mod": "claude-cheap --model ",
    "claude-cheap -f rep": "claude-cheap -f report.txt ",
    "claude-cheap -f my": "claude-cheap -f my\\ notes.txt ",
    "claude-cheap -f ~/rep": "claude-cheap -f ~/report.txt ",
    "claude-cheap 'a; b' -f inn": "claude-cheap 'a; b' -f inner/",
    "claude-cheap --schema=rep": "claude-cheap --schema=report.txt ",
    "claude-cheap --config=~/rep": "claude-cheap --config=~/report.txt ",
    "claude-cheap --engine=ap": "claude-cheap --engine=api ",
    "claude-cheap -m son": "claude-cheap -m sonnet ",
    "claude-cheap --tools Bash,Re": "claude-cheap --tools Bash,Read ",
    "claude-cheap --host we": "claude-cheap --host west ",
    "claude-cheap --key-source fi": "claude-cheap --key-source file:",
    "claude-cheap --key-source file:rep": "claude-cheap --key-source file:report.txt ",
    "farmhand doct": "farmhand doctor ",
    "farmhand batch rep": "farmhand batch report.txt ",
    "farmhand batch --batch pe": "farmhand batch --batch people ",
    "farmhand batch --project-dir in": "farmhand batch --project-dir inner/",
    "farmhand cost --by work": "farmhand cost --by work-class ",
}
#: A key that prints the line, and what the shell reads first.
_SHELLS = {
    "bash": (
        ["bash", "--noprofile", "--rcfile", ".rc", "-i"],
        "source complete/claude-cheap; source complete/farmhand; PS1=\n"
        """bind -x '"\\C-x\\C-l": printf "LINE<%s>" "$READLINE_LINE"'; echo RE""ADY\n""",
    ),
    "zsh": (
        ["zsh", "-i"],
        "autoload -Uz compinit && compinit -u; for f in complete/*.zsh; do source $f; done; PS1=\n"
        """shown() { print -rn -- "LINE<$BUFFER>" }; zle -N shown; bindkey '^X^L' shown; print RE""ADY\n""",
    ),
    "fish": (
        ["fish", "-i"],
        "source complete/claude-cheap.fish; source complete/farmhand.fish\nfunction fish_prompt; end\n"
        """bind \\cx\\cl 'printf "LINE<%s>" (commandline)'; echo RE""ADY\n""",
    ),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("completion"))
    hosts = {name: {"address": "192.0.2.1"} for name in ("west", "east")}
    made.put({
        **dict.fromkeys(("report.txt", "my notes.txt", "inner/deep.txt"), "text"),
        ".config/farmhand/hosts.json": json.dumps({"hosts": hosts}),
        ".rc": _SHELLS["bash"][1], ".zshrc": _SHELLS["zsh"][1], ".config/fish/config.fish": _SHELLS["fish"][1],
    })  # fmt: skip
    assert main([f"--{shell}={made.path / 'complete'}" for shell in _SHELLS]) == 0
    with closing(CostStore(made.path / ".local/state/farmhand/cost.db")) as store:
        number, *_ = store.ledger("uuid", "west")
        task = FinishedTask(
            number=1, state="succeeded", batch="people", model="haiku", engine="api", created_at=NOW, finished_at=NOW
        )
        store.merge(number, FinishedTask, [task])
    return made


class Terminal:
    """A shell on a terminal."""

    def __init__(self, shell: str, home: Home) -> None:
        environment = home.environment | {"PATH": f"{BIN}:/usr/bin:/bin", "TERM": "xterm", "SHELL": "/bin/sh"}
        [program, *arguments] = _SHELLS[shell][0]
        self._shell = pexpect.spawn(
            program, arguments, env=environment, cwd=str(home.path), timeout=120, dimensions=(40, 200)
        )
        self._shell.expect("READY")

    def line(self, typed: str) -> str:
        """The line after `typed` and the tab key; it is cleared then."""
        self._shell.send(f"{typed}\t\x18\x0c")
        self._shell.expect("LINE<([^>]*)>")
        self._shell.send("\x15")
        return str(self._shell.match[1].decode())

    def close(self) -> None:
        self._shell.close(force=True)


@pytest.fixture(scope="module", params=_SHELLS)
def terminal(request: pytest.FixtureRequest, home: Home) -> Iterator[Terminal]:
    opened = Terminal(request.param, home)
    yield opened
    opened.close()


def test_a_shell_completes_options_values_and_files(terminal: Terminal) -> None:
    assert {typed: terminal.line(typed) for typed in CASES} == CASES
