"""The table of engines is what tasks, rules and the agent's settings know."""

from __future__ import annotations

from typing import get_args

import pytest

from farmhand.agent.config import Config
from farmhand.core import rules
from farmhand.core.engines import ENGINES, SLOTTED
from farmhand.core.task import Engine, Task


def test_a_task_names_an_engine_of_the_table() -> None:
    assert set(get_args(Engine)) == {"auto", *SLOTTED}
    plain: list[Task] = [Task(id="a", prompt="p", engine=engine) for engine in get_args(Engine)]
    tasks = [*plain, Task(id="a", prompt="p", economy=True)]
    assert {task.resolved_engine for task in tasks} == set(ENGINES)


def test_each_engine_with_slots_has_its_setting() -> None:
    assert {name for name in Config.__struct_fields__ if name.startswith("slots_")} == {f"slots_{n}" for n in SLOTTED}


@pytest.mark.parametrize("name", SLOTTED)
def test_tools_go_where_the_table_says(name: Engine) -> None:
    broken = rules.check(Task(id="a", prompt="p", engine=name, tools=("Bash",)))
    assert (broken is None) == ENGINES[name].tools
