from __future__ import annotations

import os
import socket
import stat
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.errors import WireError
from farmhand.wire import transport
from farmhand.wire.transport import Host, SshTransport, UnixTransport, default_control_dir


def ssh(address: str, *, control_dir: str | None = None, **way: Any) -> SshTransport:
    """The transport to a host."""
    return SshTransport(Host(address, address, **way), control_dir=control_dir)


def options(argv: list[str]) -> dict[str, str]:
    """The -o options of an ssh command."""
    pairs = (argv[n + 1].partition("=") for n, word in enumerate(argv) if word == "-o")
    return {name: value for name, _, value in pairs}


def test_ssh_never_accepts_a_host_key_and_shares_nothing(tmp_path: Path) -> None:
    identity, known = tmp_path / "id 1%", tmp_path / "known"
    identity.touch()
    known.touch()
    argv = ssh("farm1.example", port=2222, user="jo", identity_file=str(identity), known_hosts_file=str(known)).argv()
    given = options(argv)
    assert given["StrictHostKeyChecking"] == "yes"
    assert given["VerifyHostKeyDNS"] == "no"
    assert given["BatchMode"] == "yes"
    assert given["ForwardAgent"] == "no"
    assert given["IdentitiesOnly"] == "yes"
    assert given["IdentityFile"] == f'"{tmp_path}/id 1%%"'
    assert given["UserKnownHostsFile"] == f'"{known}"'
    assert (given["Port"], given["User"]) == ("2222", "jo")
    assert argv[-4:] == ["--", "farm1.example", "jada-agent", "bridge"]


def test_what_security_hangs_on_comes_before_the_options_of_the_way() -> None:
    argv = ssh("h", options=("StrictHostKeyChecking=no", "ProxyJump=b"), ssh_config="none").argv()
    assert argv[2:4] == ["-F", "none"]
    assert "Port" not in options(argv), "the operator's ~/.ssh/config says it"
    words = [word for word in argv if word.startswith("StrictHostKeyChecking")]
    assert words[0] == "StrictHostKeyChecking=yes", "of an option given twice ssh takes the first"
    assert argv.index("ProxyJump=b") > argv.index("StrictHostKeyChecking=yes")


@pytest.mark.parametrize(
    ("address", "given"),
    [("::1", "::1"), ("[::1]", "::1"), ("fe80::1%eth0", "fe80::1%eth0"), ("[2001:db8::2]", "2001:db8::2")],
)
def test_an_ipv6_literal_is_an_address(address: str, given: str) -> None:
    assert ssh(address).argv()[-3] == given


def test_a_shared_connection_has_a_private_directory_and_a_short_path() -> None:
    with tempfile.TemporaryDirectory() as short:  # pytest's own directory may be too long
        control = Path(short) / "c"
        given = options(ssh("h", control_dir=str(control)).argv())
        assert given["ControlMaster"] == "auto"
        assert stat.S_IMODE(control.stat().st_mode) == 0o700
        other = options(ssh("h", port=23, control_dir=str(control)).argv())
        assert other["ControlPath"] != given["ControlPath"]


def test_without_a_safe_directory_nothing_is_shared(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    for directory in (str(open_to_all), str(tmp_path / ("x" * 80)), ""):
        assert options(ssh("h", control_dir=directory).argv())["ControlMaster"] == "no"


def test_the_control_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_control_dir() == f"{tmp_path}/farmhand"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert default_control_dir() == "/c/farmhand/ssh"


@pytest.mark.parametrize("address", ["-oProxyCommand=id", "", "a b", "a;id", "$(id)", "a\nb", "[a]b", "[-oX]"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(WireError, match="address") as caught:
        ssh(address)
    assert caught.value.code == "not_configured"


def test_a_missing_dispatch_key_is_refused_before_ssh_starts(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="does not exist") as caught:
        ssh("h", identity_file=str(tmp_path / "none"))
    assert caught.value.code == "not_configured"


def test_a_missing_ssh_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WireError, match="ssh cannot be started") as caught:
        ssh("h", control_dir="").open()
    assert caught.value.code == "not_configured"


def test_unix_socket_failures(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with pytest.raises(WireError, match="no agent socket") as missing:
        UnixTransport(str(path)).open()
    assert missing.value.code == "agent_missing"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()
    with pytest.raises(WireError, match="refused") as down:
        UnixTransport(str(path)).open()
    assert down.value.code == "agent_down"


def test_ssh_gets_no_private_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ssh"
    fake.write_text("#!/bin/sh\nenv\n")
    fake.chmod(0o755)
    for name in ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "FARMHAND_HOST"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stream = ssh("h", control_dir="").open()
    said = b"".join(iter(lambda: stream.sock.recv(65536), b"")).decode()
    stream.close()
    assert "PATH=" in said
    assert "secret" not in said


def test_an_early_start_is_taken_once_and_ended_if_nobody_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "ssh"
    fake.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/started\nexec cat\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    transport = ssh("h", control_dir="")
    transport.open_early()
    transport.open_early()
    with closing(transport.open()) as stream:
        stream.sock.sendall(b"hello")
        assert stream.sock.recv(5) == b"hello"
        assert (tmp_path / "started").read_text().count("\n") == 1
    transport.close_early()
    transport.open_early()
    transport.close_early()
    with closing(transport.open()) as stream:
        stream.sock.sendall(b"x")
        assert stream.sock.recv(1) == b"x"
        pids = [int(pid) for pid in (tmp_path / "started").read_text().split()]
    # The early one may have been ended before it could note its start.
    assert len(pids) in (2, 3)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such files")
def test_what_a_host_says_on_stderr_has_so_much_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'printf "first\\n" >&2; for _ in 1 2 3; do head -c 65536 /dev/zero | tr "\\0" x >&2; done; exit 255'
    for name, script in (("ssh", said), ("little", "echo why >&2; exit 255")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stream = ssh("box", control_dir="").open()
    assert isinstance(stream, transport.ProcessStream)
    assert stream.failure() is not None
    assert os.fstat(stream._errors.fileno()).st_size == 65536
    assert stream._said().startswith("first\nxxx")
    stream.close()
    (tmp_path / "little").replace(tmp_path / "ssh")
    stream = ssh("box", control_dir="").open()
    assert "box: why" in str(stream.failure())
    stream.close()


def test_ssh_has_a_session_of_its_own_and_none_of_our_files_and_ends_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ssh").write_text(
        f"#!{sys.executable} -I\n"
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(os.getsid(0) == os.getpid(), len(os.listdir('/dev/fd')) - 1, os.getpid(), flush=True)\n"
        "time.sleep(600)\n"
    )
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        stream = ssh("farm1", control_dir="").open()
        own_session, files, pid = stream.sock.recv(100).split()
    finally:
        os.close(read)
        os.close(write)
    assert (own_session, files) == (b"True", b"3")
    stream.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
