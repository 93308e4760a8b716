"""The roles' READMEs, and that argument specifications and defaults say the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("role_readmes", ROOT / "scripts" / "role_readmes.py")
assert _spec is not None
assert _spec.loader is not None
role_readmes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(role_readmes)

ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))


def options(role: Path) -> dict[str, dict[str, Any]]:
    text = (role / "meta/argument_specs.yml").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    return found


def test_committed_readmes_are_up_to_date() -> None:
    assert role_readmes.stale(ROOT / "roles", write=False) == []


def test_check_names_what_is_stale_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta = tmp_path / "roles/demo/meta"
    meta.mkdir(parents=True)
    option = {"type": "list", "elements": "str", "default": [], "description": "a | b"}
    spec = {"argument_specs": {"main": {"short_description": "Demo", "options": {"demo_x": option}}}}
    (meta / "argument_specs.yml").write_text(yaml.safe_dump(spec))
    roles = tmp_path / "roles"
    assert role_readmes.main(["--check"], roles) == 1
    assert "roles/demo/README.md: out of date" in capsys.readouterr().out
    assert not (roles / "demo/README.md").exists()
    assert role_readmes.main([], roles) == 0
    assert "| `demo_x` | list of str | `[]` | a \\| b |" in (roles / "demo/README.md").read_text()
    assert role_readmes.main(["--check"], roles) == 0


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_every_default_is_specified_and_the_same(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text(encoding="utf-8"))
    specified = options(role)
    assert set(defaults) == set(specified)
    for name, value in defaults.items():
        if not (isinstance(value, str) and "{{" in value):
            assert specified[name]["default"] == value, name


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_names_begin_with_the_role(role: Path) -> None:
    assert all(name.startswith(f"{role.name}_") for name in options(role))
