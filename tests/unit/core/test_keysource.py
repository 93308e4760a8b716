from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend

from farmhand.core.errors import WireError
from farmhand.core.keysource import read_key

KEY = "sk-ant-test-keysource-0123456789"


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / "repos.env"
    path.write_text(f"GITHUB_TOKEN=other\nANTHROPIC_API_KEY='{KEY}'\nSECOND={KEY}2\n")
    path.chmod(0o600)
    return path


def refused(source: str) -> str:
    """The one line that `source` is refused with; it never holds a key."""
    with pytest.raises(WireError) as caught:
        read_key(source)
    assert caught.value.code == "not_configured"
    line = str(caught.value)
    assert "\n" not in line
    assert "keysource" not in line
    return line


def test_file(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_key(f"file:{env_file}") == KEY
    assert read_key(f"file:{env_file}#SECOND") == KEY + "2"
    monkeypatch.setenv("HOME", str(env_file.parent))
    assert read_key() == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o700, 0o666])
def test_a_file_that_others_can_read_is_refused(env_file: Path, mode: int) -> None:
    env_file.chmod(mode)
    line = refused(f"file:{env_file}")
    assert f"has mode {mode:04o}" in line
    assert f"chmod 600 {env_file}" in line


def test_a_tighter_mode_is_fine(env_file: Path) -> None:
    env_file.chmod(0o400)
    assert read_key(f"file:{env_file}") == KEY


def test_a_file_of_somebody_else_is_refused(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    assert "belongs to another user" in refused(f"file:{env_file}")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(f"file:{tmp_path}/none")
    assert "not a regular file" in refused(f"file:{tmp_path}")
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "not a regular file" in refused(f"file:{tmp_path}/pipe")


def test_what_is_in_the_file_is_refused(env_file: Path) -> None:
    assert "sets no NOBODY" in refused(f"file:{env_file}#NOBODY")
    assert "does not start with sk-ant-" in refused(f"file:{env_file}#GITHUB_TOKEN")
    env_file.write_text(f"A=1\nANTHROPIC_API_KEY=$(echo {KEY})\n")
    assert f"{env_file}, line 2: expansions" in refused(f"file:{env_file}")
    env_file.write_bytes(b"ANTHROPIC_API_KEY=\xff\n")
    assert "not UTF-8" in refused(f"file:{env_file}")
    env_file.write_text("ANTHROPIC_API_KEY=\n")
    assert "is empty" in refused(f"file:{env_file}")
    env_file.write_bytes(b"#" * (1024 * 1024 + 1))
    assert "larger than" in refused(f"file:{env_file}")


def test_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    assert read_key("env:A_KEY") == KEY
    assert "B_KEY is not set" in refused("env:B_KEY")
    assert "not a variable's name" in refused(f"env:{KEY}")


class _Memory(KeyringBackend):  # type: ignore[misc]  # keyring is not typed
    priority = 1.0

    def get_password(self, service: str, username: str) -> str | None:
        if service == "broken":
            raise RuntimeError(KEY)
        return KEY if (service, username) == ("farm/hand", "me") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


def test_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring.core, "_keyring_backend", _Memory())
    assert read_key("keyring:farm/hand/me") == KEY
    assert "has no farmhand/you" in refused("keyring:farmhand/you")
    assert "RuntimeError" in refused("keyring:broken/me")
    assert "keyring:SERVICE/USER" in refused("keyring:farmhand")
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert "pip install keyring" in refused("keyring:farm/hand/me")


def test_keyring_of_a_real_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that keyrings.alt keeps in a file, chosen and filled as an operator would: by keyring's own command."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    fill = [sys.executable, "-m", "keyring", "set", "farm/hand", "me"]
    subprocess.run(fill, input=KEY, text=True, check=True, stdout=subprocess.DEVNULL)
    # A process of its own, as claude-cheap is one: the backend is chosen once per process.
    read = "import sys; from farmhand.core.keysource import read_key; print(read_key(sys.argv[1]))"
    argv = [sys.executable, "-c", read, "keyring:farm/hand/me"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == f"{KEY}\n"


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_key(f"command:printf '%s\\n' {KEY}") == KEY
    # No shell: what would be a second command is an argument.
    refused("command:echo x; touch ran")
    assert not (tmp_path / "ran").exists()
    assert "ended with status 1" in refused("command:false")
    assert "cannot be run" in refused("command:/nowhere/program")
    assert "more than one line" in refused(f"command:printf '%s\\n%s\\n' {KEY} x")
    assert "cannot be split" in refused("command:echo 'open")


def test_a_command_does_not_get_our_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is empty" in refused("command:cat")


@pytest.mark.parametrize("source", ["", "file:", "nothing", KEY, f"http:{KEY}", f"file:/tmp/{KEY}", f"keyring:{KEY}"])
def test_what_is_no_source_is_refused_and_a_pasted_key_is_not_repeated(source: str) -> None:
    refused(source)


def test_a_secret_on_aws_needs_boto3_and_no_other_source_does(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import sys; sys.modules['farmhand.aws'] = sys.modules['boto3'] = None\n"
        "from farmhand.core.keysource import read_key; read_key('env:A_KEY')"
    )
    subprocess.run([sys.executable, "-c", script], env={"A_KEY": KEY}, check=True)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "pip install boto3 aws-encryption-sdk" in refused("secretsmanager:a/secret")
    assert "not the name of a secret" in refused(f"secretsmanager:{KEY}")
