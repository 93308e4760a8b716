"""Running site.yml again with other variables: what a check says of it, what it does, and again without them.

Another API, the full network, another CA; beside that what somebody has left or changed on the host.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.farm import ApiControl, Farm
from tests.support.farm.background import Background
from tests.support.farm.image import REFRESH
from tests.support.farm.run import Completed
from tests.support.messages_api.answer import echo

OUT = ("--tools", "Bash", "--network", "full", "go out")
STRAY = "sk-ant-test-stray-0000000000000000"
#: What `site.yml` may touch on a host, as one digest; what the agent and Ansible themselves write is not in it.
_LOOK = (
    "find /etc /home /opt/jada-agent /root /usr/bin /usr/lib/claude-code /var/backups /var/lib/farmhand -xdev -type f"
    " ! -path '*/.ansible/*' ! -name '*.pyc' -printf '%p %s %m %U %T@\\n' | sort | sha256sum"
)
#: What the variables are not about. That a second run changes nothing there is shown by Molecule's default scenario.
_UNTOUCHED = ("--skip-tags", "packages,accounts,claude_cli,install")


@dataclass
class Changed:
    """The farm while it talks to `other` and allows the full network, and how it came to that."""

    farm: Farm
    other: ApiControl
    ca: Path
    announced: Completed
    #: What the check left, which should be the same.
    looks: tuple[str, str]
    done: Completed
    #: What is in the home of Ansible's login after that.
    home: set[str]


def site(farm: Farm, *options: str) -> Completed:
    done = farm.ansible("site.yml", *options, program="ansible-playbook", timeout_s=900)
    assert done.returncode == 0, done.stdout[-3000:]
    return done


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


@pytest.fixture(scope="module")
def changed(built_farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changed]:
    farm, directory = built_farm, tmp_path_factory.mktemp("other-api")
    process = Background(directory / "pid", directory / "log")
    argv = [sys.executable, "-m", "tests.support.messages_api", "--listen", f"{farm.container.gateway}:0"]
    url = process.start(argv, cwd=farm.root, first_line="listening on ").removeprefix("listening on ")
    other = ApiControl(url)
    other.keys(farm.key)
    ca = make_ca(farm, directory)
    farm.exec("sh", "-c", f"echo ANTHROPIC_API_KEY={STRAY} >> /etc/environment")
    farm.exec("sh", "-c", "echo 'AcceptEnv CLAUDE_CODE_OAUTH_TOKEN' > /etc/ssh/sshd_config.d/90-stray.conf")
    farm.exec("chmod", "0644", "/etc/jada-agent/config.toml")
    values = {"jada_agent_slots_cli": 3, "jada_agent_idle": "90s", "jada_agent_network_full": True}
    values |= {"base_ca_certificates": [str(ca)], "jada_agent_upstream_url": url}
    before = looks(farm)
    announced = site(farm, "--check", "--diff", "-e", json.dumps(values))
    after = looks(farm)
    done = site(farm, "--diff", *_UNTOUCHED, "-e", json.dumps(values))
    home = set(farm.exec("sh", "-c", "ls -A ~admin").stdout.split())
    yield Changed(farm, other, ca, announced, (before, after), done, home)
    farm.close_connections()  # one that was opened while the stray key lay about has it in its environment
    farm.exec("sh", "-c", "rm -r /var/backups/farmhand /etc/ssh/sshd_config.d/90-stray.conf*")
    farm.exec("sh", "-c", "rm /usr/local/share/ca-certificates/farmhand-test.crt && update-ca-certificates --fresh")
    process.stop()


def test_what_a_check_announces_is_what_the_run_does(changed: Changed) -> None:
    announced, done = changed.announced, changed.done
    before, after = changed.looks
    assert after == before
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
    assert STRAY not in changed.farm.exec("cat", "/etc/environment").stdout
    trusted = changed.farm.exec("cat", "/etc/ssl/certs/ca-certificates.crt").stdout
    assert changed.ca.read_text(encoding="ascii") in trusted


def test_site_yml_leaves_nothing_in_the_logins_home(changed: Changed) -> None:
    usual = changed.farm.exec("ls", "-A", "/etc/skel").stdout.split()
    # sudo makes the last one.
    assert changed.home <= {*usual, ".ssh", ".sudo_as_admin_successful"}


def look_out(changed: Changed, *options: str) -> str:
    """What a task prints that tries to reach the API's address past the meter, and looks around."""
    target = changed.other.url.removeprefix("http://").replace(":", "/")
    command = f"(exec 3<>/dev/tcp/{target}) 2>/dev/null && echo OPEN; env; ls -A /run /var/lib /home 2>/dev/null; id -u"
    tool = {"tool_use": {"name": "Bash", "input": {"command": command, "description": "d"}}}
    changed.other.clear()
    changed.other.rule("go out", tool, {"text": "{tool_result}"})
    done = changed.farm.cheap("--tools", "Bash", *options, "go out")
    assert done.returncode == 0, done
    return done.stdout


def test_the_same_farm_talks_to_another_api(changed: Changed) -> None:
    changed.other.clear()
    before = len(changed.farm.api.posts())
    assert changed.farm.cheap("Who are you?").stdout == echo("Who are you?") + "\n"
    assert len(changed.other.posts()) == 1
    assert len(changed.farm.api.posts()) == before


def test_a_task_that_asks_for_the_full_network_gets_it_and_all_other_walls_stand(changed: Changed) -> None:
    seen = look_out(changed, "--network", "full")
    assert "OPEN" in seen
    assert changed.farm.key not in seen
    assert "agent.sock" not in seen
    assert int(seen.split()[-1]) >= 1000


def test_a_task_that_does_not_ask_gets_none(changed: Changed) -> None:
    seen = look_out(changed)
    assert "ANTHROPIC_BASE_URL" in seen
    assert "OPEN" not in seen


def test_site_yml_without_them_takes_both_back(changed: Changed) -> None:
    farm = changed.farm
    farm.build(*REFRESH)
    done = farm.cheap(*OUT)
    assert done.returncode == 5, done
    assert "jada_agent_network_full" in done.stderr
    assert farm.exec("systemctl", "is-active", "jada-task-full.socket").returncode != 0
    before = len(farm.api.posts())
    assert farm.cheap("And now?").returncode == 0
    assert len(farm.api.posts()) == before + 1


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
    done = farm.ansible("site.yml", "-e", wrong, program="ansible-playbook")
    assert done.returncode == 2
    assert said in re.sub(r"\s+", " ", done.stdout)
    assert changes(done) == []
    assert "TASK [base : Install packages]" not in done.stdout
    assert looks(farm) == before
