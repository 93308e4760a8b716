"""rotate-key.yml and the module, with the real ansible-playbook."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import sys
import termios
import uuid
from io import FileIO
from pathlib import Path

import pytest

from farmhand.core.keys import fingerprint
from tests.integration.dispatch.test_rotate import watch
from tests.support.agent import Agent
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.rotation import Station, new_key

CHECKOUT = Path(__file__).resolve().parents[3]
NEW = new_key(1)


class Playbook:
    """ansible-playbook rotate-key.yml, with everything that it would find at an operator's."""

    def __init__(self, station: Station, tmp_path: Path) -> None:
        self.home = tmp_path / "home"
        self.home.mkdir()
        self.station = station
        given = {**station.parameters, "state_dir": str(tmp_path / "state")}
        defaults = tmp_path / "defaults.json"
        self.given = given
        defaults.write_text(json.dumps(given))
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        }
        # module_defaults stand for the settings and hosts.json, which know no agent on this machine.
        text = (CHECKOUT / "rotate-key.yml").read_text()
        self.path = tmp_path / "rotate-key.yml"
        self.path.write_text(
            text.replace("  tasks:\n", f"  module_defaults:\n    farmhand_key: {given!r}\n  tasks:\n", 1)
        )

    async def __call__(self, *options: str, stdin: bytes = b"") -> tuple[int, str]:
        """(exit status, all output)."""
        process = await asyncio.create_subprocess_exec(
            "ansible-playbook",
            str(self.path),
            *options,
            env=self.environment,
            cwd=CHECKOUT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(stdin), 120)
        assert process.returncode is not None
        text = out.decode()
        for key in (DEFAULT_KEY, NEW):
            assert key not in text
        return process.returncode, text


@pytest.fixture
def playbook(station: Station, tmp_path: Path) -> Playbook:
    return Playbook(station, tmp_path)


def source(tmp_path: Path, key: str) -> str:
    file = tmp_path / "new.env"
    file.write_text(f"NEXT={key}\n")
    file.chmod(0o600)
    return f"rotate_new_key=file:{file}#NEXT"


async def test_check_mode_tells_the_truth_and_a_second_run_changes_nothing(
    playbook: Playbook, station: Station, agents: dict[str, Agent], api: MessagesApi, tmp_path: Path
) -> None:
    api.state.keys = frozenset({DEFAULT_KEY, NEW})
    new, before = source(tmp_path, NEW), station.key_file.read_bytes()
    status, out = await playbook("-e", new, "--check", "--diff")
    assert status == 0, out
    assert "changed=5" in out
    assert f"+key: {fingerprint(NEW)}" in out
    assert station.key_file.read_bytes() == before
    assert api.posts == []
    assert not Path(playbook.given["state_dir"], "state.json").exists()
    status, out = await playbook("-e", new, "-vvv")
    assert status == 0, out
    assert "changed=5" in out
    assert station.key_file.read_bytes() == before.replace(DEFAULT_KEY.encode(), NEW.encode())
    assert api.state.keys == {NEW}
    status, out = await playbook("-e", new)
    assert status == 0, out
    assert "changed=0" in out


async def test_a_dead_key_fails_in_check_mode_as_well(
    playbook: Playbook, station: Station, api: MessagesApi, tmp_path: Path
) -> None:
    before = station.key_file.read_bytes()
    status, out = await playbook("-e", source(tmp_path, NEW), "--check")
    assert status == 2
    assert "does not know the new key (401)" in out
    assert station.key_file.read_bytes() == before


async def test_by_hand_and_back(
    playbook: Playbook, station: Station, agents: dict[str, Agent], api: MessagesApi, tmp_path: Path
) -> None:
    api.state.keys = frozenset({DEFAULT_KEY, NEW})
    api.state.admin_keys = frozenset()
    before = station.key_file.read_bytes()
    status, out = await playbook("-e", source(tmp_path, NEW))
    assert status == 0, out
    assert "https://platform.claude.com/settings/keys" in out
    # Asked again it goes on, without asking for a key; what is left to be done is said again.
    status, out = await playbook()
    assert status == 0, out
    assert "still works" in out
    assert "changed=0" in out
    status, out = await playbook("-e", "rotate_abort=true", "--check")
    assert "changed=1" in out, out
    status, out = await playbook("-e", "rotate_abort=true")
    assert status == 0, out
    assert "changed=1" in out
    assert station.key_file.read_bytes() == before


def take_terminal() -> None:
    """In the child: stdin is its terminal, and it is in the foreground there."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def type_in(key: str, operator: FileIO, terminal: FileIO) -> bytes:
    """Type the key where Ansible asks for it; all that the terminal shows."""
    out = b""
    while b"New API key" not in out:
        out += await asyncio.to_thread(operator.read, 65536)
    # What was typed before Ansible reads is thrown away; it reads without blocking.
    while os.get_blocking(terminal.fileno()):  # noqa: ASYNC110  (nobody is told)
        await asyncio.sleep(0.02)
    operator.write(f"{key}\r".encode())
    terminal.close()
    with contextlib.suppress(OSError):  # a terminal whose other side has gone cannot be read
        while piece := await asyncio.to_thread(operator.read, 65536):
            out += piece
    return out


async def test_a_key_that_is_typed_in_is_seen_nowhere(playbook: Playbook, station: Station, api: MessagesApi) -> None:
    key = f"sk-ant-test-{uuid.uuid4().hex}"
    api.state.keys = frozenset({DEFAULT_KEY, key})
    ours, theirs = pty.openpty()
    watching = asyncio.create_task(watch([DEFAULT_KEY, key]))
    with os.fdopen(theirs, "rb", buffering=0) as terminal, os.fdopen(ours, "r+b", buffering=0) as operator:
        process = await asyncio.create_subprocess_exec(
            *("ansible-playbook", str(playbook.path), "-vvv"),
            env=playbook.environment,
            cwd=CHECKOUT,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            preexec_fn=take_terminal,
        )
        try:
            out = await asyncio.wait_for(type_in(key, operator, terminal), 120)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)  # so that nobody waits any more for what the terminal shows
            raise
    assert await process.wait() == 0, out.decode()
    watching.cancel()
    assert await watching == []
    assert key.encode() not in out
    assert f"ANTHROPIC_API_KEY={key}\n" in station.key_file.read_text()


async def test_no_terminal_and_a_key_as_an_argument(playbook: Playbook, station: Station) -> None:
    status, out = await playbook()
    assert status == 2
    assert "there is no terminal to ask for the new key on" in out
    status, out = await playbook("-e", "rotate_new_key=sk-ant-test-pasted-00000000")
    assert status == 2
    assert "that key has leaked" in out
    assert "sk-ant-test-pasted" not in out
