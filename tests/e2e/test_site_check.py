"""`site.yml --check --diff` on a built host tells the truth and shows no secret; a preflight stops a run in time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.farm import Farm
from tests.support.farm.run import Completed

STRAY = "sk-ant-test-stray-0000000000000000"
#: What `site.yml` may touch on a host, as one digest; what the agent and Ansible themselves write is not in it.
_LOOK = (
    "find /etc /home /opt/jada-agent /root /usr/bin /usr/lib/claude-code /var/backups /var/lib/farmhand -xdev -type f"
    " ! -path '*/.ansible/*' ! -name '*.pyc' -printf '%p %s %m %U %T@\\n' | sort | sha256sum"
)


@pytest.fixture
def host(farm: Farm) -> Iterator[Farm]:
    """The farm, which the test leaves built as it was."""
    yield farm
    farm.build()


def site(farm: Farm, *options: str) -> Completed:
    return farm.ansible("site.yml", *options, program="ansible-playbook", timeout_s=900)


def changes(done: Completed) -> list[str]:
    """`task (item)` of everything that was reported as changed, handlers included, in order."""
    found, task = [], ""
    for line in done.stdout.splitlines():
        if named := re.match(r"(?:TASK|RUNNING HANDLER) \[(.+)\]", line):
            task = named[1]
        elif changed := re.match(r"changed: \[[^\]]+\](?: => \((.+)\))?", line):
            found.append(f"{task} ({changed[1]})" if changed[1] else task)
    return found


def looks(farm: Farm) -> str:
    return farm.exec("sh", "-c", _LOOK).stdout


def make_ca(farm: Farm, directory: Path) -> Path:
    """A CA certificate of our own, on the controller."""
    ca = directory / "farmhand-test.crt"
    request = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=test"]
    ca.write_text(farm.exec(*request, "-addext", "basicConstraints=critical,CA:TRUE").stdout, encoding="ascii")
    return ca


def test_what_a_check_announces_is_what_the_run_does(host: Farm, tmp_path: Path) -> None:
    ca = make_ca(host, tmp_path)
    host.exec("sh", "-c", f"echo ANTHROPIC_API_KEY={STRAY} >> /etc/environment")
    host.exec("sh", "-c", "echo 'AcceptEnv CLAUDE_CODE_OAUTH_TOKEN' > /etc/ssh/sshd_config.d/90-stray.conf")
    host.exec("chmod", "0644", "/etc/jada-agent/config.toml")
    values = {"jada_agent_slots_cli": 3, "jada_agent_idle": "90s", "jada_agent_network_full": True}
    variables = ("-e", json.dumps({**values, "base_ca_certificates": [str(ca)]}))
    before = looks(host)
    announced = site(host, "--check", "--diff", *variables)
    assert announced.returncode == 0, announced.stdout[-3000:]
    assert looks(host) == before
    done = site(host, "--diff", *variables)
    assert done.returncode == 0, done.stdout[-3000:]
    # A check cannot start what it did not write, and what it did not stop runs: these come with what it announced.
    follow_up = re.compile(r"jada_agent : (Listen|Serve)")
    assert [what for what in changes(done) if not follow_up.match(what)] == changes(announced)
    for said in (announced, done):
        text = said.stdout + said.stderr
        assert re.search(r"^\+idle_s = 90$", text, re.MULTILINE)
        assert re.search(r"^\+slots_cli = 3$", text, re.MULTILINE)
        assert re.search(r"^\+MaxConnections=14$", text, re.MULTILINE)
        assert "-/etc/environment:" in text
        assert "-AcceptEnv CLAUDE_CODE_OAUTH_TOKEN" in text
        assert STRAY not in text
    assert STRAY not in host.exec("cat", "/etc/environment").stdout
    assert ca.read_text(encoding="ascii") in host.exec("cat", "/etc/ssl/certs/ca-certificates.crt").stdout
    host.exec("sh", "-c", "rm -r /var/backups/farmhand /etc/ssh/sshd_config.d/90-stray.conf*")
    host.exec("sh", "-c", "rm /usr/local/share/ca-certificates/farmhand-test.crt && update-ca-certificates --fresh")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("preflight_min_memory_mb=99999999", "preflight_min_memory_mb asks for 99999999"),
        ("jada_agent_attempts=0", "jada_agent_attempts is 0: give 1 to 20"),
    ],
)
def test_a_mistake_in_the_last_role_stops_the_run_before_the_first_changes_anything(
    farm: Farm, wrong: str, said: str
) -> None:
    before = looks(farm)
    done = site(farm, "-e", wrong)
    assert done.returncode == 2
    assert said in re.sub(r"\s+", " ", done.stdout)
    assert changes(done) == []
    assert "TASK [base : Install packages]" not in done.stdout
    assert looks(farm) == before
