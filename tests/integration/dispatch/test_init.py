"""`farmhand init` with a real sshd, by options and at a terminal: what it writes, and that it is never too early."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.integration.dispatch.conftest import BIN, Workstation
from tests.integration.dispatch.sshd import Sshd, keygen
from tests.support.messages_api import DEFAULT_KEY, MessagesApi

PATIENCE_S = 120.0


@dataclass
class Newcomer:
    """An operator with an ssh key and a metered key, who has rented the box `server`."""

    station: Workstation
    server: Sshd
    project: Path

    @property
    def written(self) -> dict[str, str]:
        """What is in the inventory, the settings and known_hosts."""
        home = self.station.home
        places = (self.project / "inventory", self.station.config_dir, home / ".ssh")
        return {
            str(
                path.relative_to(path.parents[2] if path.parent.name == "group_vars" else path.parents[1])
            ): path.read_text()
            for place in places
            for path in place.rglob("*")
            if path.is_file() and path.name in ("farm1.yml", "farm.yml", "config.toml", "known_hosts")
        }

    @property
    def fingerprint(self) -> str:
        public = self.server.directory / "host_key.pub"
        done = subprocess.run(["ssh-keygen", "-lf", str(public)], capture_output=True, text=True, check=True)
        return done.stdout.split()[1]

    def options(self, **changed: str) -> list[str]:
        """All that can be asked for, as options."""
        given = {"address": self.server.address, "port": str(self.server.port), "user": self.server.user} | {
            "host-key": self.fingerprint,
            "project-dir": str(self.project),
        }
        return [word for name, value in (given | changed).items() if value for word in (f"--{name}", value)]

    async def run(self, *options: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(
            subprocess.run,
            [str(BIN / "farmhand"), "init", *options],
            env=self.station.environment, cwd=self.station.home, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def newcomer(workstation: Workstation, api: MessagesApi, tmp_path: Path) -> Iterator[Newcomer]:
    project = tmp_path / "checkout"
    project.mkdir()
    for name in ("site.yml", "ansible.cfg"):
        (project / name).touch()
    directory = tmp_path / "box"
    directory.mkdir()
    server = Sshd(directory, "")
    server.authorize(server.identity.with_suffix(".pub").read_text().strip(), "", "no-pty")
    server.start()
    home = workstation.home
    (home / ".ssh").mkdir()
    # OpenSSH's programs take the home from the user database, whatever HOME is.
    config = home / ".ssh/config"
    config.write_text(
        f"UserKnownHostsFile {home}/.ssh/known_hosts\nIdentityFile {server.identity}\nIdentitiesOnly yes\n"
    )
    (home / "bin").mkdir()
    wrapper = home / "bin/ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    wrapper.chmod(0o755)
    workstation.environment["PATH"] = f"{home}/bin:{workstation.environment['PATH']}"
    workstation.environment |= {"FARMHAND_UPSTREAM_URL": api.url, "FARMHAND_CONNECT_TIMEOUT_S": "60"}
    yield Newcomer(workstation, server, project)
    server.stop()


async def test_options_alone_write_inventory_settings_and_host_key(newcomer: Newcomer) -> None:
    status, out, err = await newcomer.run(*newcomer.options())
    assert (status, out) == (0, "Next: farmhand up\n"), err
    assert "accepts the key" in err
    assert "becomes root" in err
    written = newcomer.written
    host = yaml.safe_load(written["inventory/farm1.yml"])["farm"]["hosts"]["farm1"]
    server = newcomer.server
    assert host == {"ansible_host": server.address, "ansible_user": server.user, "ansible_port": server.port}
    variables = yaml.safe_load(written["inventory/group_vars/farm.yml"])
    upstream = newcomer.station.environment["FARMHAND_UPSTREAM_URL"]
    assert variables == {"ansible_become": True, "jada_agent_upstream_url": upstream}
    assert tomllib.loads(written["farmhand/config.toml"]) == {"key_source": "file:~/repos.env"}
    key = " ".join(server.host_public.split()[:2])
    assert written[".ssh/known_hosts"] == f"[{server.address}]:{server.port} {key}\n"
    assert DEFAULT_KEY not in json.dumps([written, out, err])
    assert await newcomer.run(*newcomer.options()) == (0, "Next: farmhand up\n", err.partition("farmhand: wrote")[0])


async def test_nothing_is_replaced_unasked(newcomer: Newcomer) -> None:
    config = newcomer.station.config_dir / "config.toml"
    config.write_text('# mine\nmodel = "sonnet"\nkey_source = "file:/elsewhere"\n')
    before = newcomer.written
    bare = {"host-key": newcomer.fingerprint.removeprefix("SHA256:")}
    status, _, err = await newcomer.run(*newcomer.options(**{"key-source": "file:~/repos.env"}, **bare))
    assert (status, newcomer.written) == (5, before), err
    assert "config.toml would be replaced (--yes replaces it" in err
    status, _, err = await newcomer.run(*newcomer.options(**{"key-source": "file:~/repos.env"}), "--yes")
    assert status == 0, err
    assert config.read_text() == '# mine\nmodel = "sonnet"\nkey_source = "file:~/repos.env"\n'


@pytest.mark.parametrize(
    ("changed", "status", "says"),
    [
        ({"host-key": ""}, 5, "which is not on record"),
        ({"host-key": "SHA256:AAAA"}, 5, "not 'SHA256:AAAA'"),
        ({"port": "1"}, 4, "127.0.0.1, port 1: "),
        ({"address": "-oProxyCommand=true"}, 2, "is no address"),
        ({"address": ""}, 2, "no terminal to ask on"),
        ({"user": "no-such-login"}, 4, "does not let no-such-login in (copy your ssh key there"),
        ({"key-source": "file:/nowhere"}, 3, "/nowhere cannot be read"),
        ({"name": "a b"}, 2, "is no name for a host"),
        ({"name": "farm"}, 2, "is no name for a host"),
    ],
)
async def test_a_wrong_answer_is_one_line_and_nothing_is_written(
    newcomer: Newcomer, changed: dict[str, str], status: int, says: str
) -> None:
    ended, out, err = await newcomer.run(*newcomer.options(**changed))
    assert (ended, out, newcomer.written) == (status, "", {}), err
    assert says in err.splitlines()[-1]


async def test_a_key_that_the_api_does_not_know_is_not_taken(newcomer: Newcomer, api: MessagesApi) -> None:
    source = newcomer.station.home / "other.env"
    source.write_text("ANTHROPIC_API_KEY=sk-ant-test-unknown-0000000000000000\n")
    source.chmod(0o600)
    status, _, err = await newcomer.run(*newcomer.options(**{"key-source": f"file:{source}"}))
    assert (status, newcomer.written) == (3, {}), err
    assert "does not know the key" in err


async def test_another_host_key_than_the_one_on_record_ends_it(newcomer: Newcomer, tmp_path: Path) -> None:
    other = keygen(tmp_path / "other")
    known = newcomer.station.home / ".ssh/known_hosts"
    known.write_text(f"[127.0.0.1]:{newcomer.server.port} {other}\n")
    status, _, err = await newcomer.run(*newcomer.options())
    assert status == 5
    assert "another host key than the one on record" in err
    assert list(newcomer.written) == [".ssh/known_hosts"]


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, newcomer: Newcomer, *options: str) -> None:
        pid, self._terminal = pty.fork()
        if pid == 0:
            os.chdir(newcomer.station.home)
            words = ["farmhand", "init", "--project-dir", str(newcomer.project), *options]
            os.execve(BIN / "farmhand", words, newcomer.station.environment)  # noqa: S606
        self._pid = pid
        self.said = ""
        self._seen = 0

    async def answer(self, question: str, text: str) -> None:
        """Wait for the question, which comes after what was answered before, and type `text`."""
        await asyncio.to_thread(self._until, lambda: question in self.said[self._seen :], question)
        self._seen = self.said.index(question, self._seen) + len(question)
        os.write(self._terminal, text.encode())

    async def end(self) -> int:
        """Return its exit status."""
        await asyncio.to_thread(self._until, lambda: False, "")
        _, status = await asyncio.to_thread(os.waitpid, self._pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _until(self, condition: object, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        assert callable(condition)
        while not condition():
            assert time.monotonic() < deadline, f"no {what!r} in {self.said!r}"
            if not select.select([self._terminal], [], [], 1)[0]:
                continue
            try:
                self.said += os.read(self._terminal, 4096).decode()
            except OSError:  # it has ended
                assert not what, f"no {what!r} in {self.said!r}"
                return


async def test_at_a_terminal_a_wrong_answer_is_asked_for_again(newcomer: Newcomer) -> None:
    terminal = Terminal(newcomer, "--port", str(newcomer.server.port))
    await terminal.answer("Address of the box", "two words\n")
    await terminal.answer("is no address", "")
    await terminal.answer("Address of the box", "127.0.0.1\n")
    await terminal.answer("Is it the same?", "y\n")
    assert newcomer.fingerprint in terminal.said
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in terminal.said
    await terminal.answer("Login there", "no-such-login\n")
    await terminal.answer("Login there", f"{newcomer.server.user}\n")
    await terminal.answer("Where the metered API key is", "\n")
    await terminal.answer("Build farm1 now?", "n\n")
    assert await terminal.end() == 0
    assert terminal.said.endswith("Next: farmhand up\r\n")
    assert len(newcomer.written) == 4


async def test_ctrl_c_leaves_nothing(newcomer: Newcomer) -> None:
    terminal = Terminal(newcomer, *newcomer.options(**{"project-dir": "", "user": ""}))
    await terminal.answer("Login there", f"{newcomer.server.user}\n")
    await terminal.answer("Where the metered API key is", "\x03")
    assert await terminal.end() == 130
    assert "Traceback" not in terminal.said
    assert newcomer.written == {}


async def test_a_fingerprint_that_differs_ends_it(newcomer: Newcomer) -> None:
    terminal = Terminal(newcomer, *newcomer.options(**{"project-dir": "", "host-key": ""}))
    await terminal.answer("Is it the same?", "n\n")
    assert await terminal.end() == 5
    assert newcomer.written == {}


async def test_a_file_that_cannot_be_written_takes_the_others_back(newcomer: Newcomer) -> None:
    config = newcomer.station.environment["FARMHAND_CONFIG"] = str(newcomer.station.home / "repos.env/config.toml")
    status, _, err = await newcomer.run(*newcomer.options())
    assert (status, newcomer.written) == (3, {}), err
    assert config in err.splitlines()[-1]
