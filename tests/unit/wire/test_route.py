from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from farmhand.wire import route
from farmhand.wire.transport import Host, SshTransport


@pytest.mark.parametrize(
    ("text", "options", "config"),
    [
        ("", [], ""),
        ("-o ControlMaster=auto -o ControlPersist=60s -C", ["Compression=yes"], ""),
        ("-J jo@bastion:2222", ["ProxyJump=jo@bastion:2222"], ""),
        ("-Jbastion -p 22 -6", ["ProxyJump=bastion", "Port=22", "AddressFamily=inet6"], ""),
        ("-o ProxyJump=[2001:db8::1]:22", ["ProxyJump=[2001:db8::1]:22"], ""),
        ("-o 'ProxyCommand=ssh -W %h:%p -q \"b x\"'", ['ProxyCommand=ssh -W %h:%p -q "b x"'], ""),
        ('-o ProxyCommand="nc -X 5 -x p:1 %h %p"', ["ProxyCommand=nc -X 5 -x p:1 %h %p"], ""),
        (
            "-oHostKeyAlias=farm -o 'hostname 10.0.0.1' -o 'Port = 7'",
            ["HostKeyAlias=farm", "hostname=10.0.0.1", "Port=7"],
            "",
        ),
        ("-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null", [], ""),
        ("-o 'UserKnownHostsFile=/a ~/b'", ["UserKnownHostsFile=/a ~/b"], ""),
        ("-A -X -tt -i /k -l jo -L 1:h:2 -R 3 -D 4 -E log -S none -o SendEnv=X -o LocalCommand=id -vvv", [], ""),
        ("-F none", [], "none"),
        ("-F /x/config -o Ciphers=a,b", ["Ciphers=a,b"], "/x/config"),
    ],
)
def test_what_leads_to_the_host_is_carried(text: str, options: list[str], config: str) -> None:
    assert route.options_of([text]) == (options, config)


def test_relative_paths_are_those_of_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert route.options_of(["-F conf -o UserKnownHostsFile=known"]) == (
        [f"UserKnownHostsFile={tmp_path}/known"],
        f"{tmp_path}/conf",
    )


@pytest.mark.parametrize("text", ["host", "-o", "-o Nothing", "-z", "-o 'a", "-J b c", "-o 'ProxyJump=a\nb'"])
def test_what_is_no_argument_of_ssh_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        route.options_of([text])


@pytest.mark.parametrize(
    ("given", "address", "port"),
    [
        ("farm1", "farm1", 0),
        ("jo@farm1", "farm1", 0),
        ("ssh://jo@farm1:2222", "farm1", 2222),
        ("ssh://[::1]:22/", "::1", 22),
        ("[2001:db8::1]", "2001:db8::1", 0),
        ("fe80::1%eth0", "fe80::1%eth0", 0),
        ("[odd]", "[odd]", 0),
    ],
)
def test_a_destination(given: str, address: str, port: int) -> None:
    assert route.destination(given) == (address, port)


def test_an_entry_says_no_more_than_there_is() -> None:
    assert route.entry("alias", 0, ["-o ControlMaster=auto"]) == {"address": "alias"}
    assert route.entry("ssh://h:7", 0, ["-J b"]) == {"address": "h", "port": 7, "options": ["ProxyJump=b"]}
    assert route.entry("ssh://h:7", 8, ["-F none"]) == {"address": "h", "port": 8, "ssh_config": "none"}


def test_ssh_takes_every_option_that_is_carried() -> None:
    """Names that ssh does not know at all would be a mistake of ours; `-G` reads the command line and ends."""
    known = subprocess.run(["ssh", "-G", "-F", "none", "h"], capture_output=True, text=True, check=True).stdout
    said = {line.split()[0] for line in known.splitlines()}
    assert {"hostname", "port", "userknownhostsfile", "ciphers", "addressfamily"} <= said & route.CARRIED
    never = {"user", "identityfile", "stricthostkeychecking", "controlpath", "forwardagent", "localcommand", "sendenv"}
    assert not never & route.CARRIED


def test_a_probe_without_ssh_and_with_a_mute_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    way = SshTransport(Host("h", "h"), 0.1, control_dir="")
    failure = route.probe(way)
    assert failure is not None
    assert failure.code == "not_configured"
    fake = tmp_path / "ssh"
    fake.write_text(f"#!{sys.executable}\nimport time; time.sleep(60)\n")
    fake.chmod(0o755)
    failure = route.probe(way)
    assert failure is not None
    assert (failure.code, "0.3 s" in str(failure)) == ("unreachable", True)
