"""The documentation is the argument spec; that it works is shown in tests/integration/dispatch."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, get_args

import yaml

from farmhand.core.task import DrainMode
from farmhand.plugins import drain
from farmhand.plugins.arguments import options

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "library" / "farmhand_drain.py"
OPTIONS = options(str(ROOT / "action_plugins" / "farmhand_drain.py"))


def literal(name: str) -> Any:
    """A constant of the module, without importing it."""
    for node in ast.parse(SOURCE.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"no {name}")


def test_the_modes_are_those_of_the_wire() -> None:
    assert tuple(OPTIONS["mode"]["choices"]) == get_args(DrainMode)


def test_examples_and_return_are_yaml() -> None:
    for step in yaml.safe_load(literal("EXAMPLES")):
        assert set(step["farmhand_drain"]) <= set(OPTIONS)
    returned = yaml.safe_load(literal("RETURN"))
    assert set(drain.remaining({}, "off")) - {"msg"} <= set(returned)
    assert all(set(described) == {"description", "type", "returned"} for described in returned.values())
