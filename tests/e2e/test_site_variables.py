"""Running site.yml again with other variables: another API, and `network: full`; and again without them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.farm import ApiControl, Farm
from tests.support.farm.background import Background
from tests.support.messages_api.answer import echo

OUT = ("--tools", "Bash", "--network", "full", "go out")


@dataclass
class Changed:
    """The farm while it talks to `other` and allows the full network."""

    farm: Farm
    other: ApiControl


@pytest.fixture(scope="module")
def changed(built_farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changed]:
    directory: Path = tmp_path_factory.mktemp("other-api")
    process = Background(directory / "pid", directory / "log")
    argv = [sys.executable, "-m", "tests.support.messages_api", "--listen", f"{built_farm.container.gateway}:0"]
    url = process.start(argv, cwd=built_farm.root, first_line="listening on ").removeprefix("listening on ")
    other = ApiControl(url)
    other.keys(built_farm.key)
    built_farm.build("-e", f"{{jada_agent_upstream_url: '{url}', jada_agent_network_full: true}}")
    yield Changed(built_farm, other)
    process.stop()


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
    farm.build()
    done = farm.cheap(*OUT)
    assert done.returncode == 5, done
    assert "jada_agent_network_full" in done.stderr
    assert farm.exec("systemctl", "is-active", "jada-task-full.socket").returncode != 0
    before = len(farm.api.posts())
    assert farm.cheap("And now?").returncode == 0
    assert len(farm.api.posts()) == before + 1
