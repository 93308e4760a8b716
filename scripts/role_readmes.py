"""Write each role's README.md from its meta/argument_specs.yml; `--check` only names the stale ones and exits 1."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"


def _text(value: Any) -> str:
    """A description (text or paragraphs) as one Markdown line; `|` would end the table's cell."""
    joined = " ".join(value) if isinstance(value, list) else str(value)
    return re.sub(r"\s+", " ", joined).strip().replace("|", "\\|")


def _default(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "(required)"
    if "default" not in option:
        return ""
    value = option["default"]
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def _type(option: dict[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    if kind == "list":
        kind = f"list of {option.get('elements', 'str')}"
    choices = option.get("choices")
    return f"{kind}: {', '.join(map(str, choices))}" if choices else kind


def render(role: str, spec: dict[str, Any]) -> str:
    """The README of `role`, whose entry point `main` is `spec`."""
    paragraphs = spec.get("description", [])
    lines = [f"# {role}", "", f"{_text(spec['short_description'])}.", ""]
    for paragraph in [paragraphs] if isinstance(paragraphs, str) else paragraphs:
        lines += [_text(paragraph), ""]
    lines += ["| variable | type | default | what it does |", "|---|---|---|---|"]
    for name, option in spec["options"].items():
        lines.append(f"| `{name}` | {_type(option)} | {_default(option)} | {_text(option['description'])} |")
    lines += ["", "Generated from `meta/argument_specs.yml` by `scripts/role_readmes.py`.", ""]
    return "\n".join(lines)


def stale(roles: Path, *, write: bool) -> list[Path]:
    """The READMEs under `roles` that differ from their specification; with `write`, they are brought up to date."""
    differing = []
    for source in sorted(roles.glob("*/meta/argument_specs.yml")):
        spec = yaml.safe_load(source.read_text(encoding="utf-8"))["argument_specs"]["main"]
        readme = source.parent.parent / "README.md"
        text = render(readme.parent.name, spec)
        if not readme.exists() or readme.read_text(encoding="utf-8") != text:
            differing.append(readme)
            if write:
                readme.write_text(text, encoding="utf-8")
    return differing


def main(argv: list[str] | None = None, roles: Path = ROLES) -> int:
    """Write or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a README is out of date")
    check: bool = parser.parse_args(argv).check
    readmes = stale(roles, write=not check)
    for readme in readmes:
        state = "out of date; run scripts/role_readmes.py" if check else "written"
        sys.stdout.write(f"{readme.relative_to(roles.parent)}: {state}\n")
    return 1 if check and readmes else 0


if __name__ == "__main__":
    sys.exit(main())
