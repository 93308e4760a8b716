"""The module's documentation and argument spec are one; that it works is shown in tests/integration/dispatch."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml

from farmhand.plugins import drain

SOURCE = Path(__file__).resolve().parents[3] / "library" / "farmhand_drain.py"


def literal(name: str) -> Any:
    """A constant of the module, without importing it."""
    for node in ast.parse(SOURCE.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"no {name}")


def test_documentation_and_argument_spec_agree() -> None:
    documented = yaml.safe_load(literal("DOCUMENTATION"))["options"]
    spec = drain.ARGUMENTS
    assert set(documented) == set(spec)
    for name, rules in spec.items():
        for what in ("type", "choices", "default"):
            assert documented[name].get(what) == rules.get(what), f"{name}.{what}"
    assert tuple(spec["mode"]["choices"]) == drain.MODES


def test_examples_and_return_are_yaml() -> None:
    for step in yaml.safe_load(literal("EXAMPLES")):
        assert set(step["farmhand_drain"]) <= set(drain.ARGUMENTS)
    returned = yaml.safe_load(literal("RETURN"))
    assert set(drain.remaining({}, "off")) - {"msg"} <= set(returned)
    assert all(set(described) == {"description", "type", "returned"} for described in returned.values())
