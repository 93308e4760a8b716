"""The agent and the sandbox, as systemd has loaded them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from testinfra.host import Host

Properties = Callable[[str], dict[str, str]]
SANDBOX = "jada-task@molecule.service"
COMMON = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "PrivateIPC": "yes",
    "ProtectProc": "invisible",
    "ProcSubset": "pid",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "MemoryDenyWriteExecute": "yes",
    "LockPersonality": "yes",
    "LimitCORE": "0",
    "UMask": "0077",
    "KeyringMode": "private",
    "MemorySwapMax": "0",
    "LoadState": "loaded",
    "NeedDaemonReload": "no",
}
AGENT = COMMON | {
    "User": "jada",
    "Type": "notify",
    "KillMode": "mixed",
    "WatchdogUSec": "30s",
    "TimeoutStopUSec": "45s",
    "MemoryMax": str(512 << 20),
    "TasksMax": "128",
    "LimitNOFILE": "4096",
    "StandardOutput": "journal",
    "StandardError": "journal",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "RuntimeDirectory": "",
    "PrivateUsers": "no",  # its clients' uids must stay visible on the socket
}
TASK = COMMON | {
    "DynamicUser": "yes",
    "User": "jt-molecule",
    "PrivateNetwork": "yes",
    "PrivateUsers": "yes",
    "StandardInput": "socket",
    "StandardOutput": "socket",
    "OOMPolicy": "continue",
    "MemoryMax": str(1 << 30),
    "TasksMax": "128",
    "RuntimeMaxUSec": "1h 5min 30s",
    "LimitFSIZE": str(1 << 30),
    "CollectMode": "inactive-or-failed",
    "Environment": "",
}


@pytest.mark.parametrize(("name", "value"), AGENT.items())
def test_agent_property(properties: Properties, name: str, value: str) -> None:
    assert properties("jada-agent.service")[name] == value


@pytest.mark.parametrize(("name", "value"), TASK.items())
def test_sandbox_property(properties: Properties, name: str, value: str) -> None:
    assert properties(SANDBOX)[name] == value


@pytest.mark.parametrize("unit", ["jada-agent.service", SANDBOX])
def test_exposure_is_low(exposure: Callable[[str], float], unit: str) -> None:
    assert exposure(unit) <= 1.5


def test_agent_reaches_listed_addresses_only(properties: Properties) -> None:
    loaded = properties("jada-agent.service")
    assert set(loaded["IPAddressDeny"].split()) == {"::/0", "0.0.0.0/0"}
    allowed = set(loaded["IPAddressAllow"].split())
    assert {"127.0.0.0/8", "::1/128", "160.79.104.0/23", "2607:6bc0::/48"} <= allowed
    assert not allowed & {"0.0.0.0/0", "::/0"}


def test_sandbox_sees_nothing_of_the_host(properties: Properties) -> None:
    loaded = properties(SANDBOX)
    assert set(loaded["TemporaryFileSystem"].split()) == {
        *(f"{path}:ro" for path in ("/run", "/var", "/opt", "/srv", "/mnt", "/media")),
        "/dev/shm:size=512M,nr_inodes=64k,mode=1777",  # noqa: S108  (a mount, not a file of ours)
    }
    assert loaded["BindPaths"].split() == [
        "/run/jada-agent/meter.sock:/run/jada-agent/meter.sock:rbind",
        "-/run/jada-task/molecule:/tmp:rbind",
    ]
    hidden = {"-/etc/jada-agent", "-/etc/ssh", "-/var/tmp", "-/sys/fs/cgroup"}
    assert hidden <= set(loaded["InaccessiblePaths"].split())


def test_sandbox_calls_no_keyring_and_no_io_uring(properties: Properties) -> None:
    allowed = set(properties(SANDBOX)["SystemCallFilter"].split())
    assert "read" in allowed
    closed = {"add_key", "keyctl", "request_key", "io_uring_setup", "io_uring_enter", "io_uring_register"}
    assert not allowed & (closed | {"process_vm_readv", "process_vm_writev", "ptrace", "pidfd_getfd"})


def test_a_damaged_ledger_is_not_started_again(properties: Properties) -> None:
    assert properties("jada-agent.service")["RestartPreventExitStatus"] == "65"


@pytest.mark.parametrize(
    ("path", "group", "mode"),
    [
        ("agent.sock", "farmhand", 0o660),
        ("meter.sock", "jada", 0o666),
        ("task.sock", "jada", 0o600),
        ("task-end.sock", "jada", 0o600),
    ],
)
def test_socket(host: Host, path: str, group: str, mode: int) -> None:
    file = host.file(f"/run/jada-agent/{path}")
    assert file.is_socket
    assert (file.user, file.group, file.mode) == ("jada", group, mode)


@pytest.mark.parametrize(
    ("path", "user", "group", "mode"),
    [
        ("/run/jada-agent", "jada", "farmhand", 0o750),
        ("/etc/jada-agent", "root", "jada", 0o750),
        ("/etc/jada-agent/config.toml", "root", "jada", 0o640),
        ("/var/lib/jada-agent", "jada", "jada", 0o700),
    ],
)
def test_mode(host: Host, path: str, user: str, group: str, mode: int) -> None:
    file = host.file(path)
    assert (file.user, file.group, file.mode) == (user, group, mode)


def test_full_network_is_off(host: Host) -> None:
    assert not host.file("/run/jada-agent/task-full.sock").exists
    assert not host.file("/etc/systemd/system/jada-task-full.socket").exists


def test_settings_are_valid_and_bad_ones_are_refused(host: Host) -> None:
    assert host.run("jada-agent check-config /etc/jada-agent/config.toml").rc == 0
    bad = host.run("printf 'slots_api = 0\\n' > /tmp/bad.toml && jada-agent check-config /tmp/bad.toml")
    assert bad.rc == 3
    assert "slots_api" in bad.stderr
    assert len(bad.stderr.splitlines()) == 1


def test_bridge_reaches_the_agent_as_the_dispatch_account(host: Host) -> None:
    request = "GET /v1/status HTTP/1.1\\r\\nHost: farmhand\\r\\nX-Farmhand-Wire: 1\\r\\nConnection: close\\r\\n\\r\\n"
    answer = host.run(f"printf '{request}' | runuser -u farmhand -- /usr/bin/jada-agent bridge")
    assert answer.stdout.startswith("HTTP/1.1 200")


def test_strangers_do_not_reach_the_sockets(host: Host) -> None:
    for name in ("agent", "meter", "task"):
        answer = host.run(f"runuser -u nobody -- /usr/bin/jada-agent bridge --socket /run/jada-agent/{name}.sock")
        assert answer.rc != 0
        assert len(answer.stderr.splitlines()) == 1


def test_agent_comes_back_after_a_crash(host: Host) -> None:
    before = host.check_output("systemctl show -P MainPID jada-agent.service")
    host.check_output(f"kill -KILL {before}")
    host.check_output(
        "timeout 20 sh -c 'until [ $(systemctl is-active jada-agent.service) = active ]; do sleep 0.2; done'"
    )
    assert host.check_output("systemctl show -P MainPID jada-agent.service") not in {before, "0"}
    assert host.file("/run/jada-agent/agent.sock").is_socket
