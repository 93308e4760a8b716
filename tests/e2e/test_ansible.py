"""The same task by plain Ansible: ad hoc, from a playbook, through ansible-runner."""

from __future__ import annotations

import json
import re
from pathlib import Path

from farmhand.core.ids import new_task_id
from tests.support.farm import ApiControl, Farm
from tests.support.messages_api.answer import echo

ASK = "prompt='What is a hay fork?'"


def test_ad_hoc(farm: Farm, api: ApiControl) -> None:
    done = farm.ansible("farm", "-m", "farmhand_task", "-a", ASK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert echo("What is a hay fork?") in done.stdout
    assert farm.key not in done.stdout + done.stderr
    assert [post["headers"]["x-api-key"] for post in api.posts()] == [farm.key]


def test_the_literal_ansible_runner_command(farm: Farm) -> None:
    """As the README has it, in the checkout."""
    arguments = ["run", ".", "--hosts", "farm", "-m", "farmhand_task", "-a", ASK]
    done = farm.ansible(*arguments, program="ansible-runner")
    assert done.returncode == 0, done.stdout + done.stderr
    assert echo("What is a hay fork?") in done.stdout


def test_a_playbook_registers_the_result_and_a_second_run_with_the_same_id_costs_nothing(
    farm: Farm, api: ApiControl, tmp_path: Path
) -> None:
    run_id = new_task_id()
    play = {
        "hosts": "farm",
        "gather_facts": False,
        "tasks": [
            {
                "farmhand_task": {"prompt": "Count to {{ item }}", "id": f"{run_id}-{{{{ item }}}}"},
                "loop": [1, 2],
                "register": "out",
            },
            {"debug": {"msg": "{{ out.results | map(attribute='text') | join(' / ') }}"}},
        ],
    }
    path = tmp_path / "count.yml"
    path.write_text(json.dumps([play]), encoding="utf-8")
    first = farm.ansible(str(path), program="ansible-playbook")
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"{echo('Count to 1')} / {echo('Count to 2')}" in re.sub(r"\s+", " ", first.stdout)
    asked = len(api.posts())
    assert asked == 2
    second = farm.ansible(str(path), program="ansible-playbook")
    assert second.returncode == 0
    assert f"{echo('Count to 1')} / {echo('Count to 2')}" in re.sub(r"\s+", " ", second.stdout)
    assert len(api.posts()) == asked


def test_a_failing_task_fails_the_module_with_its_code(farm: Farm, api: ApiControl) -> None:
    api.fault(kind="status", status=402, count=1, match="hay fork")
    done = farm.ansible("farm", "-m", "farmhand_task", "-a", ASK)
    assert done.returncode == 2
    assert "billing_error" in done.stdout
