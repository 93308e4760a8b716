"""The role `workstation` installs the commands for one user, completed in real shells, and takes them away again."""

from __future__ import annotations

import asyncio
import os
import tomllib
from pathlib import Path

import pexpect  # type: ignore[import-untyped]  # it has no stubs
import pytest

from farmhand import __version__
from tests.integration.billing.playbook import ROOT, snapshot, workstation
from tests.support.shells import Home

KEY = "sk-ant-test-first-0000000000"
ZSHRC = f"autoload -Uz compinit && compinit -u\nexport ANTHROPIC_API_KEY={KEY}\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.put({".zshrc": ZSHRC})
    # pip finds its index, and what it has fetched, the way it does for whoever runs the tests. To compile takes long.
    made.environ = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    made.environ = {"PIP_CACHE_DIR": str(Path.home() / ".cache/pip"), "PIP_NO_COMPILE": "1", **made.environ}
    own = Path.home() / ".config/pip/pip.conf"
    if own.exists():
        made.environ.setdefault("PIP_CONFIG_FILE", str(own))
    return made


async def answer(home: Home, shell: str, line: str) -> list[str]:
    """What a line typed in an interactive shell of this home prints, ~/.local/bin being on PATH."""
    path = f"{home.path}/.local/bin:/usr/bin:/bin"
    return (await home.run(shell, "interactive", line, {"PATH": path})).decode().split()


def tab(home: Home, typed: str, completed: str) -> bool:
    """Whether zsh, on a terminal, completes what is typed when the tab key is pressed."""
    environment = home.environment | {"PATH": f"{home.path}/.local/bin:/usr/bin:/bin"}
    shell = pexpect.spawn("zsh", ["-i"], env=environment, cwd=str(home.project), timeout=60, encoding="utf-8")
    try:
        # Asked in two halves, so that the echo of the line is not taken for its output.
        shell.sendline('PS1=; print RE""ADY')
        shell.expect("READY\r\n")
        shell.send(f"{typed}\t")
        return bool(shell.expect([pexpect.TIMEOUT, completed]))
    finally:
        shell.close(force=True)


async def test_installed_completed_and_gone(home: Home) -> None:
    before = snapshot(home)
    checked = await workstation(home, "--check", install=True, workstation_billing_enabled=False)
    assert checked.status == 0, checked.out[-3000:]
    assert snapshot(home) == before
    assert not (home.path / ".local/bin").exists()

    done = await workstation(home, "--diff", install=True)
    assert done.status == 0, done.out[-3000:]
    assert KEY not in checked.out + done.out
    # What was changed is said, and what is left to do: no bash of this home reads bash-completion.
    said = " ".join(done.out.split())
    for path in (".local/bin/claude-cheap", ".local/share/bash-completion/completions/farmhand", ".zshrc"):
        assert f"wrote {home.path}/{path}" in said
    assert "bash-completion is missing" in said
    assert "zsh does not complete" not in said
    assert f"{home.path}/.local/bin is not on the PATH of this session" in said
    config = home.path / ".config/farmhand/config.toml"
    assert tomllib.loads(config.read_text()) == {"project_dir": str(ROOT)}
    assert await answer(home, "bash", "farmhand --version") == ["farmhand", __version__]
    assert "--schema" in await answer(home, "bash", "claude-cheap --help")

    complete = f"source {home.path}/.local/share/bash-completion/completions/claude-cheap; "
    complete += (
        "COMP_WORDS=(claude-cheap --mo); COMP_CWORD=1; _claude_cheap_completion claude-cheap; echo ${COMPREPLY[@]}"
    )
    assert await answer(home, "bash", complete) == ["--model"]
    assert "--model" in await answer(home, "fish", 'complete -C "claude-cheap --mo"')
    assert "doctor" in await answer(home, "fish", 'complete -C "farmhand do"')
    assert await asyncio.to_thread(tab, home, "claude-cheap --mod", "--model")
    assert await asyncio.to_thread(tab, home, "farmhand doct", "doctor")

    again = await workstation(home, install=True)
    assert (again.status, again.changed) == (0, 0), again.out[-3000:]
    assert "wrote " not in again.out
    config.write_text('host = "farm1"\n' + config.read_text())
    gone = await workstation(home, install=True, farmhand_state="absent")
    assert gone.status == 0, gone.out[-3000:]
    assert config.read_text() == 'host = "farm1"\n'
    config.unlink()
    assert snapshot(home) == before
    assert not any((home.path / ".local/bin").iterdir())


async def test_somebody_else_s_command_is_not_replaced(home: Home) -> None:
    home.put({".local/bin/claude-cheap": "#!/bin/sh\nexec ssh box claude\n"})
    done = await workstation(home, install=True, workstation_billing_enabled=False)
    assert done.status == 2
    assert ".local/bin/claude-cheap is there already and is not Farmhand's. Move it away" in done.out
    assert (home.path / ".local/bin/claude-cheap").read_text().startswith("#!/bin/sh")
    assert not (home.path / ".local/share/farmhand").exists()
