"""Write each role's README from its meta/argument_specs.yml, or check that it is what would be written.

    role_readmes.py           write the part of roles/*/README.md between the two markers
    role_readmes.py --check   change nothing; exit 1 with a line for each role that differs

The checks also compare the spec with defaults/main.yml: the same names, and the same values where those are plain.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).parents[1] / "roles"
BEGIN = "<!-- made by scripts/role_readmes.py from meta/argument_specs.yml -->"
END = "<!-- end -->"


def _load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.exists() else {}


def _spec(role: Path) -> dict[str, Any]:
    main: dict[str, Any] = _load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]
    return main


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _paragraphs(text: str | list[str]) -> list[str]:
    return [" ".join(x.split()) for x in ([text] if isinstance(text, str) else text)]


def _type(option: dict[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    kind += f" of {option['elements']}" if "elements" in option else ""
    return kind + (f": {', '.join(map(str, option['choices']))}" if "choices" in option else "")


def _is_computed(default: object) -> bool:
    """Whether Jinja computes the default in defaults/main.yml; the spec then describes it in words."""
    return "{{" in str(default)


def _default(option: dict[str, Any], actual: object) -> str:
    if "default" not in option:
        return "required" if option.get("required") else ""
    if _is_computed(actual):
        return _cell(option["default"])
    return f"`{_cell(json.dumps(option['default'], ensure_ascii=False))}`"


def generated(role: Path) -> str:
    """The part of the README that the spec gives: what the role does, and the table of its variables."""
    spec = _spec(role)
    blocks = [BEGIN, f"{spec['short_description']}.", *_paragraphs(spec.get("description", []))]
    options: dict[str, dict[str, Any]] = spec.get("options", {})
    defaults = _load(role / "defaults" / "main.yml")
    if options:
        rows = ["| variable | type | default | meaning |", "|---|---|---|---|"]
        for name, option in options.items():
            meaning = _cell(" ".join(_paragraphs(option["description"])))
            rows.append(f"| `{name}` | {_cell(_type(option))} | {_default(option, defaults.get(name))} | {meaning} |")
        blocks.append("\n".join(rows))
    else:
        blocks.append("It takes no variables.")
    return "\n\n".join([*blocks, END]) + "\n"


def readme(role: Path) -> str:
    """The whole README: what stands there by hand is kept."""
    path = role / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {role.name}\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END + "\n")
    if not begin or not end:
        raise ValueError(f"{path}: the lines '{BEGIN}' and '{END}' are not both there")
    return before + generated(role) + after


def problems(role: Path) -> Iterator[str]:
    """What is wrong with a role's README and defaults, one line each."""
    path = role / "README.md"
    if not path.exists() or path.read_text(encoding="utf-8") != readme(role):
        yield f"roles/{role.name}/README.md is not what its argument_specs say: run scripts/role_readmes.py"
    options = _spec(role).get("options", {})
    defaults = _load(role / "defaults" / "main.yml")
    for name in sorted(defaults.keys() - options.keys()):
        yield f"roles/{role.name}: {name} is in defaults/main.yml and not in meta/argument_specs.yml"
    for name, option in options.items():
        if "default" in option and name not in defaults:
            yield f"roles/{role.name}: {name} has a default in meta/argument_specs.yml and none in defaults/main.yml"
        elif "default" in option and not _is_computed(defaults[name]) and defaults[name] != option["default"]:
            differ = f"{defaults[name]!r} in defaults/main.yml and {option['default']!r} in the spec"
            yield f"roles/{role.name}: the default of {name} is {differ}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Write the roles' READMEs from their argument specs.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where one differs")
    check = parser.parse_args().check
    roles = sorted(path.parents[1] for path in ROLES.glob("*/meta/main.yml"))
    if check:
        found = [line for role in roles for line in problems(role)]
        for line in found:
            print(line, file=sys.stderr)  # noqa: T201  # this is a command
        return 1 if found else 0
    for role in roles:
        (role / "README.md").write_text(readme(role), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
